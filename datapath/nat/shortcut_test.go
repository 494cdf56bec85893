// SPDX-License-Identifier: Apache-2.0

// Two rules spare most packets all others: that of an endpoint's own address, and
// that of an established flow. Neither may let pass what the others would drop.

package nat

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

func TestElementsOfOwnAddresses(t *testing.T) {
	r := newRuleset(t)
	o := owner("zl0000000000001", "net")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	// One is translated, one isolated, one neither.
	sources, all := []Source{source("10.1.0.2/16")}, []netip.Addr{addr("10.1.0.2"), addr("fd00::2"), addr("10.7.0.2")}
	opts := Options{Addresses: all, Isolated: prefixes("fd00::2/64")}
	held := opts
	held.MAC = mac
	own := func() (list []netip.Addr) {
		t.Helper()
		owned, err := r.Owned()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range owned {
			if strings.HasPrefix(e.Set, "address") {
				if e.Owner != o {
					t.Errorf("%s in %s is %+v's", e.Address, e.Set, e.Owner)
				}
				list = append(list, e.Address)
			}
		}
		return list
	}
	for _, step := range []struct {
		opts Options
		want int
	}{{opts, 3}, {opts, 3}, {held, 0}, {opts, 3}} {
		mustAdd(t, r, o, step.opts, sources...)
		if err := r.Check(o, sources, step.opts); err != nil {
			t.Error(err)
		}
		list := own()
		if len(list) != step.want {
			t.Errorf("MAC %v: own addresses %v, want %d", step.opts.MAC, list, step.want)
		}
		for _, a := range list {
			if !slices.Contains(all, a) {
				t.Errorf("%s is none of its addresses", a)
			}
		}
	}
	mustRemove(t, r, owner("zl0000000000002", "net"), all...)
	mustRemove(t, r, o, all[0])
	if list := own(); len(list) != 2 || slices.Contains(list, all[0]) {
		t.Errorf("after the removal of %s: own addresses %v", all[0], list)
	}
	if n, err := r.Collect("net", func(string) bool { return false }); n != 3 || err != nil { // and isolated6
		t.Errorf("collected %d, %v, want 3", n, err)
	}
	if list := own(); len(list) != 0 {
		t.Errorf("after Collect: own addresses %v", list)
	}
}

func TestCheckOfOwnAddresses(t *testing.T) {
	o, s := owner("zl0000000000001", "net"), source("10.1.0.2/16")
	held := Options{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	element := `element inet zipline address4 { "zl0000000000001" . 10.1.0.2 `
	for _, c := range []struct {
		name   string
		opts   Options
		damage []string
		want   string
	}{
		{"deleted", Options{}, []string{"delete " + element + "}"}, "element zl0000000000001 . 10.1.0.2 of address4 is missing"},
		{"beside a MAC", held, []string{"add " + element + `comment "zl0000000000001 net x/eth0" }`},
			"element zl0000000000001 . 10.1.0.2 of address4 is there although"},
		{"another's", Options{}, []string{"delete " + element + "}", "add " + element + `comment "zlother net x/eth0" }`},
			`element zl0000000000001 . 10.1.0.2 of address4 belongs to "zlother net x/eth0"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRuleset(t)
			mustAdd(t, r, o, c.opts, s)
			for _, command := range c.damage {
				nft(t, command)
			}
			if err := r.Check(o, []Source{s}, c.opts); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Check: %v, want %s", err, c.want)
			}
		})
	}
}

// Endpoints of the version before have no such elements: they work without, Check
// says so, and Add brings them.
func TestOwnAddressesAfterAnUpgrade(t *testing.T) {
	w := newWorld(t)
	c1 := w.attach("c1", 1, GroupChecked)
	sources := c1.sources(Masquerade)
	w.add(c1, Options{}, sources...)
	for _, command := range []string{"flush table inet zipline", "delete set inet zipline address4", "delete set inet zipline address6",
		"delete chain inet zipline " + versionChain, "add chain inet zipline version-3649593fe3ad"} {
		w.node("nft %s", command)
	}
	w.do(func(r *Ruleset) error {
		if err := r.Add(c1.owner(), sources, Options{}); !errors.Is(err, ErrNoTable) {
			t.Errorf("Add to the old table: %v, want ErrNoTable", err)
		}
		return r.Install()
	})
	for _, dst := range []netip.Addr{testrig.OutsideIPv4, testrig.OutsideIPv6} {
		echo(t, &c1.Namespace, w.Outside, dst)
	}
	w.do(func(r *Ruleset) error {
		var wrong *CheckError
		if err := r.Check(c1.owner(), sources, Options{}); !errors.As(err, &wrong) || len(wrong.Problems) != 2 {
			t.Errorf("Check: %v, want one problem for each of two addresses", err)
		}
		if err := r.Add(c1.owner(), sources, Options{}); err != nil {
			return err
		}
		return r.Check(c1.owner(), sources, Options{})
	})
}

// sendFrom sends datagrams that nobody answers.
func (c *container) sendFrom(source, to netip.Addr) {
	socket := testrig.Socket{Source: netip.AddrPortFrom(source, 0), Timeout: testrig.Patience}
	_, _ = c.EchoUDP(netip.AddrPortFrom(to, 9), []byte("x"), socket)
}

// Only without its route an own address shows by which rule it passes.
func TestOwnAddressIsNotLookedUpInRoutes(t *testing.T) {
	w := newWorld(t)
	c1 := w.attach("c1", 1, GroupChecked)
	w.add(c1, Options{}, c1.sources(Masquerade)...)
	w.node("ip route del %s/32 dev %s", c1.addr4, c1.device)
	w.node("ip route del %s/128 dev %s", c1.addr6, c1.device)
	for _, pair := range [][2]netip.Addr{{c1.addr4, testrig.OutsideIPv4}, {c1.addr6, testrig.OutsideIPv6}} {
		before := w.drops(forgedSource)
		c1.sendFrom(pair[0], pair[1])
		if n := w.drops(forgedSource) - before; n != 0 {
			t.Errorf("%d packets from %s dropped", n, pair[0])
		}
		w.do(func(r *Ruleset) error { return r.Remove(c1.owner(), pair[:1]) })
		c1.sendFrom(pair[0], pair[1])
		if w.drops(forgedSource) == before {
			t.Errorf("no packet from %s dropped without its element", pair[0])
		}
	}
}

// What comes from elsewhere may come from anywhere.
func TestOtherDevicesAreNotChecked(t *testing.T) {
	w := newWorld(t)
	c1 := w.attach("c1", 1, GroupChecked)
	w.add(c1, Options{}, c1.sources(Masquerade)...)
	for _, pair := range [][2]netip.Addr{{c1.addr4, testrig.NodeIPv4}, {c1.addr6, testrig.NodeIPv6}} {
		w.Outside.MustRun(t, "ip", "addr", "add", netip.PrefixFrom(pair[0], pair[0].BitLen()).String(), "dev", testrig.Uplink, "nodad")
		socket := testrig.Socket{Source: netip.AddrPortFrom(pair[0], 0), Timeout: testrig.Patience}
		_, _ = w.Outside.EchoUDP(netip.AddrPortFrom(pair[1], 9), []byte("x"), socket)
	}
	if n := w.drops(forgedSource); n != 0 {
		t.Errorf("%d packets dropped", n)
	}
}

// The source is checked before conntrack: that a flow is established lets nobody
// else send in its name.
func TestForgedPacketsOfAnEstablishedFlow(t *testing.T) {
	w := newWorld(t)
	c1, c2 := w.attach("c1", 1, GroupChecked), w.attach("c2", 1, GroupChecked)
	w.add(c1, Options{}, c1.sources(Masquerade)...)
	w.add(c2, Options{}, c2.sources(Masquerade)...)
	for _, pair := range [][2]netip.Addr{{c1.addr4, testrig.OutsideIPv4}, {c1.addr6, testrig.OutsideIPv6}} {
		server := w.Outside.ServeUDP(t, netip.AddrPortFrom(pair[1], 0))
		socket := testrig.Socket{Source: netip.AddrPortFrom(pair[0], 5000)}
		for range 2 {
			if _, err := c1.EchoUDP(server.Addr, []byte("x"), socket); err != nil {
				t.Fatal(err)
			}
		}
		before, seen := w.drops(forgedSource), len(server.Peers())
		c2.addAddress(t, pair[0])
		socket.Timeout = testrig.Patience
		if _, err := c2.EchoUDP(server.Addr, []byte("x"), socket); err == nil {
			t.Errorf("answer to another's packet of %s", pair[0])
		}
		if n := w.drops(forgedSource); n == before {
			t.Errorf("no packet from %s counted as forged", pair[0])
		}
		if n := len(server.Peers()); n != seen {
			t.Errorf("the server saw %d packets too many from %s", n-seen, pair[0])
		}
	}
}

// Isolation is decided by the first packet of a flow, and by every one that
// conntrack does not know as one of an established flow.
func TestIsolationByStateOfTheFlow(t *testing.T) {
	w := newWorld(t)
	w.Node.SetSysctl(t, "netfilter/nf_conntrack_tcp_loose", "0")
	c1, c2 := w.attach("c1", 1, GroupChecked), w.attach("c2", 1, GroupChecked)
	w.add(c1, Options{})
	w.add(c2, Options{})
	var flows []net.Conn
	for _, dst := range []netip.Addr{c2.addr4, c2.addr6} {
		server := c2.ServeTCP(t, netip.AddrPortFrom(dst, 0))
		conn, err := c1.Dial("tcp", server.Addr, testrig.Socket{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		flows = append(flows, conn)
	}
	time.Sleep(longEnough) // for the server's first line
	w.add(c1, c1.isolated())
	w.add(c2, c2.isolated())
	inside := watch(t, &c2.Namespace)
	for _, conn := range flows {
		if _, err := conn.Write([]byte("established")); err != nil {
			t.Fatal(err)
		}
	}
	inside.await(t, c1.addr4)
	inside.await(t, c1.addr6)
	if n := w.drops(isolated); n != 0 {
		t.Errorf("%d packets of established flows dropped", n)
	}

	w.node("conntrack -F")
	w.node("conntrack -F -f ipv6")
	time.Sleep(longEnough)
	invalid := watch(t, &c2.Namespace)
	for _, conn := range flows {
		if _, err := conn.Write([]byte("midstream")); err != nil {
			t.Fatal(err)
		}
	}
	sendRST(t, c1, netip.AddrPortFrom(c2.addr4, 80))
	time.Sleep(longEnough)
	invalid.never(t, c1.addr4, c1.addr6)
	if n := w.drops(isolated); n < 3 {
		t.Errorf("%d invalid packets dropped, want at least 3", n)
	}

	// Untracked; TestIsolatedEndpoints has the new ones.
	w.node("nft add table inet raw")
	w.node("nft add chain inet raw prerouting { type filter hook prerouting priority raw ; }")
	w.node("nft add rule inet raw prerouting notrack")
	before := w.drops(isolated)
	noEcho(t, c1, c2)
	noEcho(t, c2, c1)
	if n := w.drops(isolated) - before; n < 2*2*3 {
		t.Errorf("%d untracked packets dropped, want at least one per direction, family and protocol", n)
	}
}
