// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// isolated returns the options that isolate a container's addresses.
func (c *container) isolated() Options {
	return Options{Isolated: []netip.Prefix{
		netip.PrefixFrom(c.addr4, c.subnet4.Bits()), netip.PrefixFrom(c.addr6, c.subnet6.Bits()),
	}}
}

// noEcho sends what echo does, and fails the test for every answer, and for
// every packet that the other side saw.
func noEcho(t *testing.T, from, to *container) {
	t.Helper()
	socket := testrig.Socket{Timeout: testrig.Patience}
	inside := watch(t, &to.Namespace)
	for _, pair := range [][2]netip.Addr{{from.addr4, to.addr4}, {from.addr6, to.addr6}} {
		src, dst := pair[0], pair[1]
		tcp, udp := to.ServeTCP(t, netip.AddrPortFrom(dst, 0)), to.ServeUDP(t, netip.AddrPortFrom(dst, 0))
		if _, err := from.EchoTCP(tcp.Addr, []byte("zipline"), socket); err == nil {
			t.Errorf("%s reaches %s by TCP", from.device, dst)
		}
		if _, err := from.EchoUDP(udp.Addr, []byte("zipline"), socket); err == nil {
			t.Errorf("%s reaches %s by UDP", from.device, dst)
		}
		if _, err := from.PingWith(dst, testrig.PingOptions{Negative: true}); err == nil {
			t.Errorf("%s reaches %s by ping", from.device, dst)
		}
		if n := inside.from(src); n != 0 {
			t.Errorf("%d packets came from %s to %s", n, src, dst)
		}
		tcp.Close()
		udp.Close()
	}
}

// echoBoth is echo by both families, between containers.
func echoBoth(t *testing.T, from, to *container) {
	t.Helper()
	echo(t, &from.Namespace, &to.Namespace, to.addr4)
	echo(t, &from.Namespace, &to.Namespace, to.addr6)
}

func TestIsolatedEndpoints(t *testing.T) {
	for _, masquerade := range []bool{false, true} {
		t.Run(fmt.Sprint("masquerade ", masquerade), func(t *testing.T) {
			w := newWorld(t)
			c1, c2, open := w.attach("c1", 1, GroupChecked), w.attach("c2", 1, GroupUnchecked), w.attach("open", 1, GroupChecked)
			far := w.attach("far", 2, GroupChecked)
			w.Outside.MustRun(t, "ip", "route", "add", "10.0.0.0/8", "via", testrig.NodeIPv4.String())
			w.Outside.MustRun(t, "ip", "route", "add", "fd00::/16", "via", testrig.NodeIPv6.String())
			for _, c := range []*container{c1, c2, open, far} {
				opts := c.isolated()
				if c == open {
					opts = Options{}
				}
				if masquerade {
					w.add(c, opts, c.sources(Masquerade)...)
				} else {
					w.add(c, opts)
				}
			}
			noEcho(t, c1, c2)
			noEcho(t, c2, c1)
			dropped := w.drops(isolated)
			if dropped < 2*2*3 {
				t.Errorf("%d packets counted as dropped, want at least one per family and protocol", dropped)
			}
			for _, c := range []*container{c1, c2} {
				echoBoth(t, c, open)
				echoBoth(t, open, c)
				echoBoth(t, c, far) // isolated too, but elsewhere
				echoBoth(t, far, c)
				for _, gateway := range []netip.Addr{c.subnet4.Addr().Next(), c.subnet6.Addr().Next(), testrig.NodeIPv4, testrig.NodeIPv6} {
					echo(t, &c.Namespace, &w.Node.Namespace, gateway)
				}
				for _, dst := range []netip.Addr{testrig.OutsideIPv4, testrig.InternetIPv4, testrig.OutsideIPv6, testrig.InternetIPv6} {
					echo(t, &c.Namespace, w.Outside, dst)
				}
				for _, dst := range []netip.Addr{c.addr4, c.addr6} {
					echo(t, &w.Node.Namespace, &c.Namespace, dst)
					echo(t, w.Outside, &c.Namespace, dst)
				}
			}
			if n := w.drops(isolated); n != dropped {
				t.Errorf("%d packets dropped that should pass", n-dropped)
			}
			w.add(c2, Options{}, c2.sources(Masquerade)...)
			echoBoth(t, c1, c2)
			echoBoth(t, c2, c1)
		})
	}
}

// Of an endpoint with addresses in two subnets, each is a neighbour in its own.
func TestIsolatedInSeveralSubnets(t *testing.T) {
	w := newWorld(t)
	c1, c2, far := w.attach("c1", 1, GroupChecked), w.attach("c2", 1, GroupChecked), w.attach("far", 2, GroupChecked)
	second := addr("10.2.0.200")
	w.node("ip route add %s/32 dev %s", second, c1.device)
	c1.addAddress(t, second)
	opts := c1.isolated()
	opts.Isolated = append(opts.Isolated, netip.PrefixFrom(second, far.subnet4.Bits()))
	w.add(c1, opts)
	w.add(c2, c2.isolated())
	w.add(far, far.isolated())
	noEcho(t, c1, c2)
	echoBoth(t, c1, far) // from the first address
	echo(t, &c2.Namespace, &c1.Namespace, second)
	before := w.drops(isolated)
	for _, dst := range []netip.Addr{far.addr4, c2.addr4} {
		_, err := c1.PingWith(dst, testrig.PingOptions{Source: second, Negative: dst == far.addr4})
		if reached := err == nil; reached != (dst == c2.addr4) {
			t.Errorf("from %s to %s: %v", second, dst, err)
		}
	}
	if _, err := far.PingWith(second, testrig.PingOptions{Negative: true}); err == nil {
		t.Errorf("%s reaches %s", far.addr4, second)
	}
	if n := w.drops(isolated) - before; n != 2 {
		t.Errorf("%d packets dropped, want 2", n)
	}
}

// What the node's own rules make of a packet does not get around the isolation.
func TestIsolationHoldsBehindTranslatedDestination(t *testing.T) {
	w := newWorld(t)
	c1, c2, open := w.attach("c1", 1, GroupChecked), w.attach("c2", 1, GroupChecked), w.attach("open", 1, GroupChecked)
	w.add(c1, c1.isolated(), c1.sources(Masquerade)...)
	w.add(c2, c2.isolated(), c2.sources(Masquerade)...)
	server := c2.ServeTCP(t, netip.AddrPortFrom(c2.addr4, 0))
	w.node("nft add table ip published")
	w.node("nft add chain ip published prerouting { type nat hook prerouting priority dstnat ; }")
	w.node("nft add rule ip published prerouting ip daddr %s tcp dport 8080 dnat to %s", testrig.NodeIPv4, server.Addr)
	port := netip.AddrPortFrom(testrig.NodeIPv4, 8080)
	if _, err := open.EchoTCP(port, []byte("x"), testrig.Socket{}); err != nil {
		t.Error(err)
	}
	if n := w.drops(isolated); n != 0 {
		t.Errorf("%d packets dropped", n)
	}
	if _, err := c1.EchoTCP(port, []byte("x"), testrig.Socket{Timeout: testrig.Patience}); err == nil {
		t.Error("an isolated endpoint reaches another by a published port")
	}
	if n := w.drops(isolated); n == 0 {
		t.Error("no packet counted as dropped")
	}
}
