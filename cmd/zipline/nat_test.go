// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// natCases are about addresses that are translated on the way.
var natCases = []trafficCase{
	{name: "the outside sees the node's address", variants: all, run: func(t *testing.T, top *topology) {
		p := top.attachAll(network{}, 1)[0]
		leaks := top.watchLeaks(t)
		for _, f := range families {
			if peer := reach(t, &p.Namespace, top.Outside, f.outside); peer != f.node {
				t.Errorf("%s: the outside sees %s; want %s", f.name, peer, f.node)
			}
			server := top.Outside.ServeTCP(t, netip.AddrPortFrom(f.outside, 0))
			if err := p.Bulk(server.Addr, 16<<20); err != nil {
				t.Error(err)
			}
			udp := top.Outside.ServeUDP(t, netip.AddrPortFrom(f.outside, 0))
			if _, err := p.EchoUDP(udp.Addr, make([]byte, 8000), testrig.Socket{}); err != nil {
				t.Error(err)
			}
		}
		leaks.check(t)
	}},
	{name: "the outside sees the container's address without ipMasq", variants: all, run: func(t *testing.T, top *topology) {
		p := top.attachAll(network{keys: map[string]any{"ipMasq": false}}, 1)[0]
		for _, f := range families {
			top.wantSource(t, p, f.outside, f.addr(p))
		}
	}},
	{name: "an exempt destination sees the container's address", variants: tiers, run: func(t *testing.T, top *topology) {
		p := top.attachAll(network{keys: map[string]any{
			"nonMasqueradeCIDRs": []string{testrig.InternetIPv4.String() + "/32", "2001:db8:100::/48"},
		}}, 1)[0]
		for _, f := range families {
			top.wantSource(t, p, f.outside, f.addr(p))
		}
		reach(t, &p.Namespace, top.Outside, testrig.OutsideIPv4)
		reach(t, &p.Namespace, top.Outside, testrig.OutsideIPv6)
	}},
	{name: "the outside sees the egress address", variants: tiers, run: func(t *testing.T, top *topology) {
		egress := map[string]netip.Addr{"IPv4": netip.MustParseAddr("192.0.2.50"), "IPv6": netip.MustParseAddr("2001:db8:ffff::50")}
		top.Node.MustRun(t, "ip", "addr", "add", "192.0.2.50/24", "dev", testrig.Uplink)
		top.Node.MustRun(t, "ip", "addr", "add", "2001:db8:ffff::50/64", "dev", testrig.Uplink, "nodad", "preferred_lft", "0")
		n := network{keys: map[string]any{"egressIP": []string{"192.0.2.50", "2001:db8:ffff::50"}}}
		pods := top.attachAll(n, 2)
		for _, f := range families {
			if peer := reach(t, &pods[0].Namespace, top.Outside, f.outside); peer != egress[f.name] {
				t.Errorf("%s: the outside sees %s; want %s", f.name, peer, egress[f.name])
			}
			if peer := reach(t, &pods[0].Namespace, &pods[1].Namespace, f.addr(pods[1])); peer != f.addr(pods[0]) {
				t.Errorf("%s: the neighbour sees %s; want %s", f.name, peer, f.addr(pods[0]))
			}
		}
	}},
	{name: "fully random masquerade changes source ports", variants: tiers, run: func(t *testing.T, top *topology) {
		p := top.attachAll(network{keys: map[string]any{"masqueradeFullyRandom": true}}, 1)[0]
		for _, f := range families {
			server := top.Outside.ServeUDP(t, netip.AddrPortFrom(f.outside, 0))
			changed := 0
			for port := uint16(20000); port < 20008; port++ {
				peer, err := p.EchoUDP(server.Addr, []byte("random"), testrig.Socket{Source: netip.AddrPortFrom(f.addr(p), port)})
				if err != nil || peer.Addr() != f.node {
					t.Errorf("%s: peer %s, error %v", f.name, peer, err)
				}
				if peer.Port() != port {
					changed++
				}
			}
			if changed < 6 { // three that stay by chance: 1 in 10^12
				t.Errorf("%s: %d of 8 ports changed", f.name, changed)
			}
		}
	}},
	{name: "the outside reaches a container through somebody's DNAT rule", variants: all, run: func(t *testing.T, top *topology) {
		p := top.attachAll(network{}, 1)[0]
		for _, f := range families {
			tcp := p.ServeTCP(t, netip.AddrPortFrom(f.addr(p), 80))
			udp := p.ServeUDP(t, netip.AddrPortFrom(f.addr(p), 80))
			top.dnat(t, f, f.node, 8080, f.addr(p), 80)
			published := netip.AddrPortFrom(f.node, 8080)
			if peer, err := top.Outside.EchoTCP(published, []byte("published"), testrig.Socket{}); err != nil {
				t.Errorf("%s tcp: %v", f.name, err)
			} else if !isOutside(peer.Addr()) {
				t.Errorf("%s tcp: the container sees %s", f.name, peer)
			}
			if _, err := top.Outside.EchoUDP(published, []byte("published"), testrig.Socket{}); err != nil {
				t.Errorf("%s udp: %v", f.name, err)
			}
			if err := top.Outside.Bulk(netip.AddrPortFrom(f.node, 8080), 16<<20); err != nil {
				t.Error(err)
			}
			_, _ = tcp, udp
		}
	}},
	// The reference needs br_netfilter for this (contract 4.5, 41).
	{name: "a service address leads to a neighbour", variants: all, world: testrig.Options{BridgeNetfilter: true}, run: testService},
	{name: "a service address leads to a neighbour past bridge filters", variants: tiers, run: testService},
	{name: "a service address leads to the client itself when it is masqueraded", variants: tiers, run: func(t *testing.T, top *topology) {
		p := top.attachAll(network{}, 1)[0]
		for _, f := range families {
			server := p.ServeTCP(t, netip.AddrPortFrom(f.addr(p), 80))
			top.dnat(t, f, f.service, 80, f.addr(p), 80)
			top.Node.MustRunInput(t, fmt.Sprintf(`table %[1]s hairpin {
	chain post { type nat hook postrouting priority 90; %[1]s saddr %[2]s %[1]s daddr %[2]s masquerade; }
}`, f.nft, f.addr(p)), "nft", "-f", "-")
			peer, err := p.EchoTCP(netip.AddrPortFrom(f.service, 80), []byte("hairpin"), testrig.Socket{})
			if err != nil {
				t.Errorf("%s: %v", f.name, err)
			} else if peer.Addr() == f.addr(p) {
				t.Errorf("%s: the server sees %s, its own address", f.name, peer)
			}
			server.Close()
		}
	}},
	{name: "connection tracking forgets an address at DEL", variants: tiers, run: func(t *testing.T, top *topology) {
		p, other := top.attach(network{}), top.attach(network{})
		for _, f := range families {
			for _, from := range []*pod{p, other} {
				if _, err := from.EchoUDP(top.Outside.ServeUDP(t, netip.AddrPortFrom(f.outside, 0)).Addr, []byte("x"), testrig.Socket{}); err != nil {
					t.Error(err)
				}
			}
			if len(top.Node.Conntrack(t, f.addr(p).String())) == 0 {
				t.Errorf("%s: no entry before DEL", f.name)
			}
		}
		before := top.Node.Conntrack(t, other.v6.String())
		top.del(p)
		for _, f := range families {
			if left := top.Node.Conntrack(t, f.addr(p).String()); left != nil {
				t.Errorf("%s: left after DEL: %q", f.name, left)
			}
			if len(top.Node.Conntrack(t, f.addr(other).String())) == 0 {
				t.Errorf("%s: the entries of another container went too:\n%s", f.name, strings.Join(before, "\n"))
			}
		}
	}},
	{name: "a path with a smaller MTU outside is discovered", variants: all, world: testrig.Options{UplinkMTU: 1400},
		run: func(t *testing.T, top *topology) {
			p := top.attachAll(network{}, 1)[0]
			for _, f := range families {
				server := top.Outside.ServeTCP(t, netip.AddrPortFrom(f.outside, 0))
				if err := p.Bulk(server.Addr, 4<<20); err != nil {
					t.Error(err)
				}
				if _, err := p.PingWith(f.outside, testrig.PingOptions{Size: 1400, DontFragment: true, Negative: true}); err == nil {
					t.Errorf("%s: a packet over the uplink's MTU passed", f.name)
				}
				if _, err := p.PingWith(f.outside, testrig.PingOptions{Size: 1400 - f.headers, DontFragment: true}); err != nil {
					t.Error(err)
				}
			}
		}},
}

// testService is the trap of the direct tier: the reply of a neighbour has to
// come back through the translation, though the two are neighbours.
func testService(t *testing.T, top *topology) {
	top.requireLookup(t)
	pods := top.attachAll(network{}, 2)
	for _, f := range families {
		_ = pods[1].ServeTCP(t, netip.AddrPortFrom(f.addr(pods[1]), 80))
		_ = pods[1].ServeUDP(t, netip.AddrPortFrom(f.addr(pods[1]), 80))
		top.dnat(t, f, f.service, 80, f.addr(pods[1]), 80)
		service := netip.AddrPortFrom(f.service, 80)
		for range 3 {
			if peer, err := pods[0].EchoTCP(service, []byte("service"), testrig.Socket{}); err != nil {
				t.Errorf("%s tcp: %v", f.name, err)
			} else if peer.Addr() != f.addr(pods[0]) {
				t.Errorf("%s tcp: the server sees %s", f.name, peer)
			}
			if _, err := pods[0].EchoUDP(service, []byte("service"), testrig.Socket{}); err != nil {
				t.Errorf("%s udp: %v", f.name, err)
			}
		}
		if err := pods[0].Bulk(service, 16<<20); err != nil {
			t.Error(err)
		}
		// The neighbour's own address works beside it.
		if _, err := pods[0].EchoTCP(netip.AddrPortFrom(f.addr(pods[1]), 80), []byte("direct"), testrig.Socket{}); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

// dnat writes a rule in a table of the test's own, as kube-proxy or an
// administrator would.
func (top *topology) dnat(t *testing.T, f family, addr netip.Addr, port int, to netip.Addr, toPort int) {
	t.Helper()
	top.Node.MustRunInput(t, fmt.Sprintf(`table %[1]s somebody {
	chain pre { type nat hook prerouting priority dstnat; }
	chain out { type nat hook output priority -100; }
}
add rule %[1]s somebody pre %[1]s daddr %[2]s meta l4proto { tcp, udp } th dport %[3]d dnat to %[4]s
add rule %[1]s somebody out %[1]s daddr %[2]s meta l4proto { tcp, udp } th dport %[3]d dnat to %[4]s
`, f.nft, addr, port, addrPort(to, toPort)), "nft", "-f", "-")
}

// wantSource checks that a datagram of the pod reaches the outside with this
// source. It is never answered: the outside has no route to a container.
func (top *topology) wantSource(t *testing.T, p *pod, dst, want netip.Addr) {
	t.Helper()
	sniffer := top.Outside.Sniff(t, testrig.Uplink)
	_, _ = p.EchoUDP(netip.AddrPortFrom(dst, 7777), []byte("who am I"), testrig.Socket{Timeout: testrig.Patience})
	packet, ok := sniffer.Wait(func(c testrig.Captured) bool {
		return !c.Outgoing && c.Protocol == unix.IPPROTO_UDP && c.DstPort == 7777
	}, testrig.Timeout)
	if !ok || packet.Src != want {
		t.Errorf("to %s: the outside saw %v, %s; want source %s", dst, ok, packet, want)
	}
}

func isOutside(addr netip.Addr) bool {
	switch addr {
	case testrig.OutsideIPv4, testrig.OutsideIPv6, testrig.InternetIPv4, testrig.InternetIPv6:
		return true
	}
	return false
}
