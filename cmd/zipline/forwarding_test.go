// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bufio"
	"net/netip"
	"regexp"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestForwarding shows which words and which switches of the node carry TCP and
// UDP between neighbours past the stack.
func TestForwarding(t *testing.T) {
	both := []string{"iptables", "ip6tables"}
	for _, c := range []struct {
		name       string
		forwarding string
		netfilter  []string // bridge-nf-call- and which of these are on
		direct     bool
	}{
		{"direct", "direct", nil, true},
		{"direct where a bridge is filtered", "direct", both, true},
		{"kernel", "kernel", nil, false},
		{"tracked", "tracked", nil, false},
		{"auto", "auto", nil, true},
		{"auto where a bridge is filtered", "auto", both, false},
		{"auto where a bridge is filtered for IPv4", "auto", both[:1], false},
		{"auto where a bridge is filtered for IPv6", "auto", both[1:], false},
		{"no word", "", nil, true},
		{"no word where a bridge is filtered", "", both, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, variant{c.name, "zipline", c.forwarding}, testrig.Options{})
			for _, family := range c.netfilter {
				top.Node.SetSysctl(t, "bridge/bridge-nf-call-"+family, "1")
			}
			testShortcut(t, top, c.direct)
		})
	}
}

// TestNeighboursWithDifferentWords are two endpoints of one network of which one
// was made before its configuration was changed.
func TestNeighboursWithDifferentWords(t *testing.T) {
	for _, words := range [][2]variant{{kernelTier, directTier}, {directTier, kernelTier}} {
		t.Run(words[0].name+" then "+words[1].name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, words[0], testrig.Options{})
			first := top.attach(network{})
			top.v = words[1]
			second, third := top.attach(network{}), top.attach(network{})
			for _, f := range families {
				reach(t, &first.Namespace, &second.Namespace, f.addr(second))
				reach(t, &second.Namespace, &first.Namespace, f.addr(first))
				reach(t, &second.Namespace, &third.Namespace, f.addr(third))
			}
		})
	}
}

// testShortcut proves by what a packet shows, its TTL and a conntrack entry,
// which way it went: the other cases would pass with either.
func testShortcut(t *testing.T, top *topology, direct bool) {
	t.Helper()
	pods := top.attachAll(network{}, 2)
	hops := byte(1) // routers between the two
	if direct {
		hops = 0
	}
	for _, f := range families {
		sniffer := pods[1].Sniff(t, testrig.IfName)
		tcp := pods[1].ServeTCP(t, netip.AddrPortFrom(f.addr(pods[1]), 0))
		udp := pods[1].ServeUDP(t, netip.AddrPortFrom(f.addr(pods[1]), 0))
		conn, err := pods[0].Dial("tcp", tcp.Addr, testrig.Socket{})
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if err := testrig.Exchange(conn, r, []byte("tcp")); err != nil {
			t.Error(err)
		}
		if _, err := pods[0].EchoUDP(udp.Addr, []byte("udp"), testrig.Socket{}); err != nil {
			t.Error(err)
		}
		for _, port := range []uint16{tcp.Addr.Port(), udp.Addr.Port()} {
			arrived := func(c testrig.Captured) bool { return !c.Outgoing && c.DstPort == port }
			if _, ok := sniffer.Wait(arrived, testrig.Timeout); !ok {
				t.Errorf("%s: no packet to port %d seen", f.name, port)
			}
			for _, packet := range sniffer.Matching(arrived) {
				if packet.TTL != 64-hops {
					t.Errorf("%s: %s; want %d routers on the way", f.name, packet, hops)
				}
			}
		}
		entries := top.Node.Conntrack(t, f.addr(pods[1]).String())
		entries = deleteMatching(entries, regexp.MustCompile(`icmp`))
		if tracked := len(entries) > 0; tracked == direct {
			t.Errorf("%s: conntrack entries %q", f.name, entries)
		}
		_ = conn.Close()
	}
}

func deleteMatching(lines []string, pattern *regexp.Regexp) []string {
	var rest []string
	for _, line := range lines {
		if !pattern.MatchString(line) {
			rest = append(rest, line)
		}
	}
	return rest
}
