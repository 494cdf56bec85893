// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// echoFrom sends TCP, UDP and ICMP from one namespace to another and returns the
// addresses that the servers saw, in this order of protocols but ICMP's.
func echo(t *testing.T, from, to *testrig.Namespace, dst netip.Addr) (tcp, udp netip.AddrPort) {
	t.Helper()
	payload := []byte("zipline")
	tcpServer := to.ServeTCP(t, netip.AddrPortFrom(dst, 0))
	udpServer := to.ServeUDP(t, netip.AddrPortFrom(dst, 0))
	tcp, err := from.EchoTCP(tcpServer.Addr, payload, testrig.Socket{})
	if err != nil {
		t.Errorf("TCP to %s: %v", dst, err)
	}
	udp, err = from.EchoUDP(udpServer.Addr, payload, testrig.Socket{})
	if err != nil {
		t.Errorf("UDP to %s: %v", dst, err)
	}
	if err := from.Ping(dst); err != nil {
		t.Errorf("ping %s: %v", dst, err)
	}
	tcpServer.Close()
	udpServer.Close()
	return tcp, udp
}

func TestTranslationOnTheWayOut(t *testing.T) {
	for _, c := range []struct {
		name         string
		action       Action
		want4, want6 netip.Addr
	}{
		{"masquerade", Masquerade, testrig.NodeIPv4, testrig.NodeIPv6},
		{"masquerade fully random", MasqueradeFullyRandom, testrig.NodeIPv4, testrig.NodeIPv6},
		{"snat", SNAT, egress4, egress6},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c1 := w.attach("c1", 1, GroupChecked)
			w.add(c1, Options{}, c1.sources(c.action)...)
			for _, path := range []struct{ dst, want netip.Addr }{
				{testrig.OutsideIPv4, c.want4}, {testrig.InternetIPv4, c.want4},
				{testrig.OutsideIPv6, c.want6}, {testrig.InternetIPv6, c.want6},
			} {
				tcp, udp := echo(t, &c1.Namespace, w.Outside, path.dst)
				if tcp.Addr() != path.want || udp.Addr() != path.want {
					t.Errorf("%s saw %s (TCP) and %s (UDP), want %s", path.dst, tcp, udp, path.want)
				}
			}
			// ICMP as well: nothing at all came from the container's address.
			w.seen.never(t, c1.addr4, c1.addr6)
			if n := w.drops(forgedSource) + w.drops(untranslated); n != 0 {
				t.Errorf("%d packets dropped", n)
			}
		})
	}
}

// Only fully random masquerade changes a source port that is free.
func TestFullyRandomPorts(t *testing.T) {
	w := newWorld(t)
	c1, c2 := w.attach("c1", 1, GroupChecked), w.attach("c2", 1, GroupChecked)
	w.add(c1, Options{}, c1.sources(MasqueradeFullyRandom)...)
	w.add(c2, Options{}, c2.sources(Masquerade)...)
	server := w.Outside.ServeUDP(t, netip.AddrPortFrom(testrig.OutsideIPv4, 0))
	server6 := w.Outside.ServeUDP(t, netip.AddrPortFrom(testrig.OutsideIPv6, 0))
	for c, random := range map[*container]bool{c1: true, c2: false} {
		for _, try := range []struct {
			source netip.Addr
			server *testrig.Server
		}{{c.addr4, server}, {c.addr6, server6}} {
			changed := false
			for port := uint16(5000); port < 5003; port++ {
				if random {
					port += 100 // another's port is taken
				}
				socket := testrig.Socket{Source: netip.AddrPortFrom(try.source, port)}
				peer, err := c.EchoUDP(try.server.Addr, []byte("x"), socket)
				if err != nil {
					t.Fatal(err)
				}
				changed = changed || peer.Port() != port
				if random {
					port -= 100
				}
			}
			if changed != random {
				t.Errorf("%s: source port changed: %v, want %v", try.source, changed, random)
			}
		}
	}
}

func TestWhatIsNotTranslated(t *testing.T) {
	w := newWorld(t)
	c1, c2, far := w.attach("c1", 1, GroupChecked), w.attach("c2", 1, GroupChecked), w.attach("far", 2, GroupChecked)
	plain := w.attach("plain", 3, GroupChecked)
	for _, c := range []*container{c1, c2, far} {
		w.add(c, Options{}, c.sources(Masquerade, testrig.InternetIPv4.String()+"/32", testrig.InternetIPv6.String()+"/128")...)
	}
	w.Outside.MustRun(t, "ip", "route", "add", "10.0.0.0/8", "via", testrig.NodeIPv4.String())
	w.Outside.MustRun(t, "ip", "route", "add", "fd00::/16", "via", testrig.NodeIPv6.String())
	gateway := func(c *container) netip.Addr { return c.subnet4.Addr().Next() }
	for _, c := range []struct {
		name      string
		from, to  *testrig.Namespace
		dst, want netip.Addr
	}{
		{"an exempt prefix sees the container", &c1.Namespace, w.Outside, testrig.InternetIPv4, c1.addr4},
		{"an exempt IPv6 prefix sees the container", &c1.Namespace, w.Outside, testrig.InternetIPv6, c1.addr6},
		{"what is not exempt does not", &c1.Namespace, w.Outside, testrig.OutsideIPv4, testrig.NodeIPv4},
		{"the own subnet sees the container", &c1.Namespace, &c2.Namespace, c2.addr4, c1.addr4},
		{"the own IPv6 subnet sees the container", &c1.Namespace, &c2.Namespace, c2.addr6, c1.addr6},
		{"another subnet does not, as on a bridge", &c1.Namespace, &far.Namespace, far.addr4, gateway(far)},
		{"another IPv6 subnet does not", &c1.Namespace, &far.Namespace, far.addr6, far.subnet6.Addr().Next()},
		{"the node sees the container", &c1.Namespace, &w.Node.Namespace, testrig.NodeIPv4, c1.addr4},
		{"the node sees the container by IPv6", &c1.Namespace, &w.Node.Namespace, testrig.NodeIPv6, c1.addr6},
		{"the gateway address sees the container", &c1.Namespace, &w.Node.Namespace, gateway(c1), c1.addr4},
		{"the container sees the node", &w.Node.Namespace, &c1.Namespace, c1.addr4, gateway(c1)},
		{"the outside host sees the node", &w.Node.Namespace, w.Outside, testrig.OutsideIPv4, testrig.NodeIPv4},
		{"the container sees the outside host", w.Outside, &c1.Namespace, c1.addr4, testrig.OutsideIPv4},
		{"the container sees the outside host by IPv6", w.Outside, &c1.Namespace, c1.addr6, testrig.OutsideIPv6},
		{"a network without masquerade keeps its address", &plain.Namespace, w.Outside, testrig.OutsideIPv4, plain.addr4},
		{"a network without masquerade keeps its IPv6 address", &plain.Namespace, w.Outside, testrig.OutsideIPv6, plain.addr6},
	} {
		tcp, udp := echo(t, c.from, c.to, c.dst)
		if tcp.Addr() != c.want || udp.Addr() != c.want {
			t.Errorf("%s: it saw %s (TCP) and %s (UDP), want %s", c.name, tcp, udp, c.want)
		}
	}
	if n := w.drops(forgedSource) + w.drops(untranslated); n != 0 {
		t.Errorf("%d packets dropped", n)
	}
}

// The kernel does not forward multicast and broadcast here, so the source is an
// address of the node that is listed like a container's.
func TestMulticastAndBroadcastAreNotTranslated(t *testing.T) {
	w := newWorld(t)
	listed4, listed6 := addr("10.1.0.99"), addr("fd00:1::99")
	// The kernel sends multicast by the device that has the source address.
	w.node("ip addr add %s/32 dev %s", listed4, testrig.Uplink)
	w.node("ip addr add %s/128 dev %s nodad preferred_lft 0", listed6, testrig.Uplink)
	w.do(func(r *Ruleset) error {
		return r.Add(owner("zl0", "net"), []Source{source("10.1.0.99/16"), source("fd00:1::99/64")}, Options{})
	})
	send := func(from, to string) {
		t.Helper()
		err := w.Node.Do(func() error {
			conn, err := net.ListenPacket("udp", from)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			dst, err := net.ResolveUDPAddr("udp", to)
			if err != nil {
				return err
			}
			_, err = conn.WriteTo([]byte("x"), dst)
			return err
		})
		if err != nil {
			t.Fatalf("send from %s to %s: %v", from, to, err)
		}
	}
	for i, dst := range []string{"224.0.0.251:5353", "239.255.0.1:5000", "255.255.255.255:67"} {
		send("10.1.0.99:0", dst)
		deadline := time.Now().Add(testrig.Timeout)
		for w.seen.from(listed4) < i+1 && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if w.seen.from(listed4) < i+1 {
			t.Errorf("packet to %s did not come as it was", dst)
		}
	}
	send("[fd00:1::99]:0", "[ff02::fb%"+testrig.Uplink+"]:5353")
	w.seen.await(t, listed6)
	w.seen.never(t, testrig.NodeIPv4)
	send("10.1.0.99:0", testrig.OutsideIPv4.String()+":9") // proves that it is listed
	w.seen.await(t, testrig.NodeIPv4)
}

// Nothing un-translated may leave while the table is replaced under traffic.
func TestInstallUnderTraffic(t *testing.T) {
	w := newWorld(t)
	c1 := w.attach("c1", 1, GroupChecked)
	w.add(c1, Options{}, c1.sources(Masquerade)...)
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			// A new socket has a new port: every packet begins a flow.
			conn, err := c1.Dial("udp", netip.AddrPortFrom(testrig.OutsideIPv4, 9), testrig.Socket{})
			if err != nil {
				continue
			}
			_, _ = conn.Write([]byte("x"))
			_ = conn.Close()
			n++
		}
	}()
	installs := 0
	for start := time.Now(); time.Since(start) < 3*time.Second; installs++ {
		if installs%2 == 1 { // makes the next Install rebuild the table
			w.node("nft add chain inet %s forward2 { type filter hook forward priority 5; }", TableName)
		}
		w.do(func(r *Ruleset) error { return r.Install() })
	}
	close(stop)
	sent := <-done
	w.seen.await(t, testrig.NodeIPv4)
	time.Sleep(longEnough)
	w.seen.never(t, c1.addr4)
	t.Logf("%d flows, %d installs", sent, installs)
	if sent < 100 || installs < 10 {
		t.Errorf("only %d flows and %d installs", sent, installs)
	}
}
