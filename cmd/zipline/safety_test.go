// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// safetyCases are about packets that must not arrive.
var safetyCases = []trafficCase{
	{name: "an address that is not leased is unreachable and nothing leaks", variants: tiers, run: testUnleased},
	{name: "untranslated packets in state invalid do not leave", variants: tiers, run: func(t *testing.T, top *topology) {
		p := top.attachAll(network{}, 1)[0]
		leaks := top.watchLeaks(t)
		mac := p.routerMAC(t)
		for _, f := range families {
			for _, flags := range []byte{0x04, 0x14, 0x12, 0x11, 0x10} { // RST, RST-ACK, SYN-ACK, FIN-ACK, ACK
				packet := testrig.TCP(netip.AddrPortFrom(f.addr(p), 4000+uint16(flags)), netip.AddrPortFrom(f.outside, 80), flags)
				p.SendFrame(t, testrig.IfName, testrig.Ethernet(mac, p.HardwareAddr(t, testrig.IfName), packet))
			}
			if err := p.Ping(f.outside); err != nil {
				t.Error(err)
			}
		}
		leaks.check(t)
	}},
	{name: "a spoofed source is dropped", variants: tiers, run: testSpoofing},
	{name: "a foreign source passes where sourceCheck is off", variants: tiers, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{keys: map[string]any{"sourceCheck": false}}, 2)
		for _, f := range families {
			sniffer := pods[1].Sniff(t, testrig.IfName)
			packet := testrig.UDP(netip.AddrPortFrom(f.alien, 5000), netip.AddrPortFrom(f.addr(pods[1]), 5000), []byte("from far"))
			pods[0].SendFrame(t, testrig.IfName, testrig.Ethernet(pods[0].routerMAC(t), pods[0].HardwareAddr(t, testrig.IfName), packet))
			if _, ok := sniffer.Wait(func(c testrig.Captured) bool { return c.Src == f.alien }, testrig.Timeout); !ok {
				t.Errorf("%s: the packet did not arrive", f.name)
			}
		}
	}},
	{name: "a foreign MAC is dropped with macspoofchk", variants: tiers, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{keys: map[string]any{"macspoofchk": true}}, 2)
		for _, f := range families {
			sniffer := pods[1].Sniff(t, testrig.IfName)
			send := func(src net.HardwareAddr, port uint16) {
				packet := testrig.UDP(netip.AddrPortFrom(f.addr(pods[0]), port), netip.AddrPortFrom(f.addr(pods[1]), port), []byte("mac"))
				pods[0].SendFrame(t, testrig.IfName, testrig.Ethernet(pods[0].routerMAC(t), src, packet))
			}
			send(net.HardwareAddr{2, 0, 0, 0, 0, 9}, 5001)
			send(pods[0].HardwareAddr(t, testrig.IfName), 5002)
			arrived := func(port uint16, timeout time.Duration) bool {
				_, ok := sniffer.Wait(func(c testrig.Captured) bool { return c.Src == f.addr(pods[0]) && c.DstPort == port }, timeout)
				return ok
			}
			if !arrived(5002, testrig.Timeout) {
				t.Errorf("%s: a packet with the container's own MAC did not arrive", f.name)
			}
			if arrived(5001, testrig.Patience) {
				t.Errorf("%s: a packet with a foreign MAC arrived", f.name)
			}
		}
	}},
	{name: "a container cannot take its neighbour's address by ARP", variants: tiers, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{v6: "-"}, 3)
		thief, victim, client := pods[0], pods[1], pods[2]
		thief.MustRun(t, "ip", "addr", "add", victim.v4.String()+"/16", "dev", testrig.IfName)
		thief.SetSysctl(t, "ipv4/conf/all/arp_notify", "1")
		thief.MustRun(t, "sh", "-c", "ip link set eth0 down; ip link set eth0 up")
		client.MustRun(t, "ip", "neigh", "flush", "all")
		if peer := reach(t, &client.Namespace, &victim.Namespace, victim.v4); peer != client.v4 {
			t.Errorf("the victim sees %s", peer)
		}
		if _, err := thief.PingWith(client.v4, testrig.PingOptions{Source: victim.v4, Negative: true}); err == nil {
			t.Error("the thief is answered under the victim's address")
		}
	}},
}

// testUnleased asks for addresses of the subnet that nobody has, from a
// container and from the node.
func testUnleased(t *testing.T, top *topology) {
	p := top.attachAll(network{}, 1)[0]
	leaks := top.watchLeaks(t)
	for f, addr := range map[string]netip.Addr{
		"IPv4": netip.MustParseAddr("10.77.9.9"), "IPv6": netip.MustParseAddr("fd00:77::9:9"),
	} {
		for _, from := range []*testrig.Namespace{&p.Namespace, &top.Node.Namespace} {
			if _, err := from.PingWith(addr, testrig.PingOptions{Negative: true}); err == nil {
				t.Errorf("%s: nobody answers %s", f, from.Name)
			}
			quick := testrig.Socket{Timeout: testrig.Patience}
			if _, err := from.EchoTCP(netip.AddrPortFrom(addr, 80), nil, quick); err == nil {
				t.Errorf("%s: nobody accepts tcp of %s", f, from.Name)
			}
			if _, err := from.EchoUDP(netip.AddrPortFrom(addr, 80), []byte("x"), quick); err == nil {
				t.Errorf("%s: nobody answers udp of %s", f, from.Name)
			}
		}
		// With the router's MAC given, no address resolution stops the packet.
		for _, family := range families {
			if family.name == f {
				packet := testrig.UDP(netip.AddrPortFrom(family.addr(p), 6000), netip.AddrPortFrom(addr, 6000), []byte("leak"))
				p.SendFrame(t, testrig.IfName, testrig.Ethernet(p.routerMAC(t), p.HardwareAddr(t, testrig.IfName), packet))
			}
		}
	}
	leaks.check(t)
}

// testSpoofing sends packets under names that are not the container's: a
// neighbour's, an unleased one of the subnet, a stranger's and the node's.
func testSpoofing(t *testing.T, top *topology) {
	pods := top.attachAll(network{}, 3)
	thief, victim, target := pods[0], pods[1], pods[2]
	mac, own := thief.routerMAC(t), thief.HardwareAddr(t, testrig.IfName)
	leaks := top.watchLeaks(t)
	for _, f := range families {
		unleased := map[string]netip.Addr{"IPv4": netip.MustParseAddr("10.77.9.9"), "IPv6": netip.MustParseAddr("fd00:77::9:9")}[f.name]
		atTarget, atOutside := target.Sniff(t, testrig.IfName), top.Outside.Sniff(t, testrig.Uplink)
		service := top.Node.ServeUDP(t, netip.AddrPortFrom(f.gateway(thief), 5353))
		sources := []netip.Addr{f.addr(victim), unleased, f.alien, f.gateway(thief), f.node}
		for _, src := range sources {
			for _, dst := range []netip.Addr{f.addr(target), f.outside, f.gateway(thief)} {
				for _, packet := range [][]byte{
					testrig.UDP(netip.AddrPortFrom(src, 5353), netip.AddrPortFrom(dst, 5353), []byte("spoof")),
					testrig.TCP(netip.AddrPortFrom(src, 5353), netip.AddrPortFrom(dst, 5353), 2),
					testrig.Echo(src, dst),
				} {
					thief.SendFrame(t, testrig.IfName, testrig.Ethernet(mac, own, packet))
				}
			}
		}
		// An honest packet behind them shows that those before had their time.
		reach(t, &thief.Namespace, &target.Namespace, f.addr(target))
		reach(t, &thief.Namespace, top.Outside, f.outside)
		spoofed := func(c testrig.Captured) bool {
			return !c.Outgoing && (c.DstPort == 5353 || slices.Contains(sources[:4], c.Src) && bytes.Contains(c.Frame, []byte{0x7a, 0x6c, 0, 1}))
		}
		if got := atTarget.Matching(spoofed); len(got) > 0 {
			t.Errorf("%s: the neighbour got %d spoofed packets: %v", f.name, len(got), got)
		}
		if got := atOutside.Matching(spoofed); len(got) > 0 {
			t.Errorf("%s: the outside got %d spoofed packets: %v", f.name, len(got), got)
		}
		if got := service.Peers(); len(got) > 0 {
			t.Errorf("%s: the node got spoofed datagrams from %v", f.name, got)
		}
	}
	leaks.check(t)
}

// changeCases are about containers that come and go.
var changeCases = []trafficCase{
	{name: "forwarding that is half on is completed", variants: tiers, run: func(t *testing.T, top *topology) {
		// Two processes that write ip_forward at a time can leave it at 1 with
		// every device at 0: the kernel stores the value before it knows that
		// it has to try again, and then sees no change (devinet_sysctl_forward).
		for _, family := range []string{"ipv4", "ipv6"} {
			top.Node.SetSysctl(t, family+"/conf/all/forwarding", "1")
			for _, scope := range []string{"default", "lo", testrig.Uplink} {
				top.Node.SetSysctl(t, family+"/conf/"+scope+"/forwarding", "0")
			}
		}
		p := top.attachAll(network{}, 1)[0]
		for _, f := range families {
			reach(t, &p.Namespace, top.Outside, f.outside)
		}
	}},
	{name: "an address works at once for the next container that has it", variants: tiers, run: testAddressReuse},
	{name: "containers that come and go leave the others' connections alone", variants: all, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{}, 2)
		type connection struct {
			net.Conn
			what string
		}
		var conns []connection
		for _, f := range families {
			for what, server := range map[string]*testrig.Server{
				f.name + " to a neighbour": pods[1].ServeTCP(t, netip.AddrPortFrom(f.addr(pods[1]), 0)),
				f.name + " to the outside": top.Outside.ServeTCP(t, netip.AddrPortFrom(f.outside, 0)),
				f.name + " to the node":    top.Node.ServeTCP(t, netip.AddrPortFrom(f.node, 0)),
			} {
				conn, err := pods[0].Dial("tcp", server.Addr, testrig.Socket{Timeout: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				if _, err := testrig.ReadPeer(conn); err != nil {
					t.Fatal(err)
				}
				conns = append(conns, connection{conn, what})
			}
		}
		alive := func(when string) {
			for _, c := range conns {
				_ = c.SetDeadline(time.Now().Add(testrig.Timeout))
				if err := testrig.Exchange(c, c, []byte(when)); err != nil {
					t.Errorf("connection %s, %s: %v", c.what, when, err)
				}
			}
		}
		alive("at first")
		third := top.attach(network{})
		alive("after an ADD")
		other := top.attach(network{name: "other", segment: "seg1", v4: "10.78.0.0/16", v6: "fd00:78::/64"})
		alive("after an ADD in another network")
		top.del(third)
		alive("after a DEL")
		top.del(other)
		alive("after the DEL of another network")
	}},
	{name: "a container's death takes its device along and the others go on", variants: tiers, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{}, 3)
		pods[2].Kill(t)
		// The kernel removes a namespace when it finds the time.
		for deadline := time.Now().Add(10 * time.Second); strings.Contains(top.Node.MustRun(t, "ip", "-br", "link"), hostDevice(pods[2])); {
			if time.Now().After(deadline) {
				t.Fatalf("%s outlives its container", hostDevice(pods[2]))
			}
			time.Sleep(10 * time.Millisecond)
		}
		for _, f := range families {
			reach(t, &pods[0].Namespace, &pods[1].Namespace, f.addr(pods[1]))
			if _, err := pods[0].PingWith(f.addr(pods[2]), testrig.PingOptions{Negative: true}); err == nil {
				t.Errorf("%s: a dead container answers", f.name)
			}
		}
	}},
}

// testAddressReuse is the black hole of contract 1.9: neighbours and the node
// know the address by the MAC of the container that is gone.
func testAddressReuse(t *testing.T, top *topology) {
	stays := top.attach(network{})
	for round := range 3 {
		fixed := network{ipam: map[string]any{"type": "static", "addresses": []map[string]string{
			{"address": "10.77.0.50/16", "gateway": "10.77.0.1"}, {"address": "fd00:77::50/64", "gateway": "fd00:77::1"},
		}}}
		p := top.attach(fixed)
		for _, f := range families {
			reach(t, &stays.Namespace, &p.Namespace, f.addr(p))
			reach(t, &top.Node.Namespace, &p.Namespace, f.addr(p))
			reach(t, &p.Namespace, top.Outside, f.outside)
			start := time.Now()
			if err := stays.Ping(f.addr(p)); err != nil {
				t.Errorf("%s, round %d: %v", f.name, round, err)
			}
			if took := time.Since(start); took > time.Second*testrig.Slowness {
				t.Errorf("%s, round %d: first answer after %v", f.name, round, took)
			}
		}
		top.del(p)
	}
}

// leakWatch records packets of containers' addresses that reach the outside.
type leakWatch struct{ sniffer *testrig.Sniffer }

func (top *topology) watchLeaks(t *testing.T) leakWatch {
	t.Helper()
	return leakWatch{top.Outside.Sniff(t, testrig.Uplink)}
}

// check fails the test if such a packet was seen. It waits a moment for those
// still under way.
func (w leakWatch) check(t *testing.T) {
	t.Helper()
	inside := func(addr netip.Addr) bool {
		for _, subnet := range []string{"10.77.0.0/16", "10.78.0.0/16", "fd00:77::/64", "fd00:78::/64"} {
			if netip.MustParsePrefix(subnet).Contains(addr) {
				return true
			}
		}
		return false
	}
	leak := func(c testrig.Captured) bool {
		arp := c.EtherType == unix.ETH_P_ARP && bytes.Contains(c.Frame[14:], []byte{10, 77})
		return !c.Outgoing && (inside(c.Src) || inside(c.Dst) || arp)
	}
	if packet, leaked := w.sniffer.Wait(leak, testrig.Patience); leaked {
		t.Errorf("%d packets of containers' addresses leaked, first: %s", len(w.sniffer.Matching(leak)), packet)
	}
}

// routerMAC returns the MAC that the container's packets to others go to.
func (p *pod) routerMAC(t *testing.T) net.HardwareAddr {
	t.Helper()
	for _, link := range p.result.Interfaces {
		if link.Name == hostDevice(p) {
			mac, err := net.ParseMAC(link.Mac)
			if err != nil {
				t.Fatal(fmt.Errorf("mac of the host device: %w", err))
			}
			return mac
		}
	}
	t.Fatal("result without a host device")
	return nil
}
