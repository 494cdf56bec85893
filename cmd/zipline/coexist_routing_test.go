// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// A second way out of the node, which the routes of table main do not take.
const secondUplink = "uplink1"

// secondHop is a family's part of it.
var secondHop = map[string]struct{ node, outside netip.Addr }{
	"IPv4": {netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")},
	"IPv6": {netip.MustParseAddr("2001:db8:fffe::1"), netip.MustParseAddr("2001:db8:fffe::2")},
}

// addSecondUplink joins node and outside once more and writes table 100, whose
// default route is this one.
func (top *topology) addSecondUplink(t *testing.T) {
	t.Helper()
	top.Node.Wire(t, top.Outside, secondUplink, 1500)
	for _, ns := range []*testrig.Namespace{&top.Node.Namespace, top.Outside} {
		ns.SetSysctl(t, "ipv4/conf/all/rp_filter", "0") // answers come back another way
		ns.SetSysctl(t, "ipv4/conf/"+secondUplink+"/rp_filter", "0")
	}
	for _, f := range families {
		hop, bits := secondHop[f.name], map[string]string{"IPv4": "/24", "IPv6": "/64"}[f.name]
		flags := map[string][]string{"IPv6": {"nodad"}}[f.name]
		top.Node.MustRun(t, "ip", append([]string{"addr", "add", hop.node.String() + bits, "dev", secondUplink}, flags...)...)
		top.Outside.MustRun(t, "ip", append([]string{"addr", "add", hop.outside.String() + bits, "dev", secondUplink}, flags...)...)
		for deadline := time.Now().Add(testrig.Timeout); ; {
			if err := top.Node.Ping(hop.outside); err == nil {
				break
			} else if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		top.Node.MustRun(t, "ip", ipFlag(f), "route", "add", "default", "via", hop.outside.String(), "dev", secondUplink, "table", "100")
	}
}

func ipFlag(f family) string { return map[string]string{"IPv4": "-4", "IPv6": "-6"}[f.name] }

// markStreams marks what containers send to the streams' ports.
const markStreams = "table inet routing { chain pre { type filter hook prerouting priority mangle;" +
	" iifgroup 31340 meta l4proto { tcp, udp } th dport " + streamPorts + " meta mark set 7; }; }"

// detours are what an administrator does to send flows out of the second uplink.
var detours = []struct {
	name     string
	do, undo string // for ip, by family; $net, $hop
	nft      string
	uplinks  any
}{
	{
		name: "a rule by source",
		do:   "rule add lookup main suppress_prefixlength 0 pref 90; rule add from $net lookup 100 pref 100",
		undo: "rule del pref 90; rule del pref 100",
	}, {
		name: "a rule by mark",
		do:   "rule add fwmark 7 lookup 100 pref 100", undo: "rule del pref 100",
		nft: markStreams,
	}, {
		name: "a rule by mark, both uplinks accelerated",
		do:   "rule add fwmark 7 lookup 100 pref 100", undo: "rule del pref 100",
		nft: markStreams, uplinks: []string{"uplink*"},
	}, {
		name: "a route in the main table",
		do:   "route add $internet via $hop dev uplink1", undo: "route del $internet via $hop dev uplink1",
	}, {
		name: "a route in the main table, both uplinks accelerated",
		do:   "route add $internet via $hop dev uplink1", undo: "route del $internet via $hop dev uplink1",
		uplinks: []string{"uplink*"},
	},
}

// TestPolicyRouting sends flows out of a second uplink, those that run and new
// ones, and back. The source address stays (egressIP): a masqueraded flow that
// changes its device is ended by the kernel.
func TestPolicyRouting(t *testing.T) {
	t.Parallel()
	// An answer that the stack forwards takes away what the other direction is
	// carried by: one has none.
	outgoing := append(slices.Clone(bothProtocols), streamSpec{network: "udp", talk: answerOnce})
	for _, v := range honest {
		for _, d := range detours {
			t.Run(v.name+", "+d.name, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				top.addSecondUplink(t)
				keys := map[string]any{"egressIP": []string{testrig.NodeIPv4.String(), testrig.NodeIPv6.String()}}
				if d.uplinks != nil {
					keys["uplinks"] = d.uplinks
				}
				pods := top.attachAll(network{keys: keys}, 2)
				streams := top.streams(t, ways[:1], pods, outgoing...)
				top.account(t, streams...)
				top.wantCarried(t, streams...)
				wantLeavesBy(t, top, testrig.Uplink, secondUplink, streams)
				for _, f := range families {
					top.detour(t, f, d.do)
				}
				if d.nft != "" {
					top.Node.MustRunInput(t, d.nft, "nft", "-f", "-")
				}
				streams = append(streams, top.streams(t, ways[:1], pods, outgoing...)...)
				wantLeavesBy(t, top, secondUplink, testrig.Uplink, streams)
				for _, f := range families {
					top.detour(t, f, d.undo)
				}
				wantLeavesBy(t, top, testrig.Uplink, secondUplink, streams)
				for _, s := range streams {
					if err := s.failure(); err != nil {
						t.Errorf("%s: %v", s.name, err)
					}
				}
				awaitEach(t, streams, "goes on", testrig.Timeout, func(s *stream) bool {
					return s.there.moves(time.Now().Add(-time.Second)) && (s.talk != bothTalk || s.back.moves(time.Now().Add(-time.Second)))
				})
			})
		}
	}
}

// TestMultipath has a default route with two next hops: the programs choose as the
// kernel does, or the packets of a flow that check in would take the other way,
// which ends a masqueraded flow.
func TestMultipath(t *testing.T) {
	t.Parallel()
	for _, v := range honest {
		for _, policy := range []string{"0", "1"} { // hash of addresses, of ports too
			t.Run(v.name+", hash policy "+policy, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				top.addSecondUplink(t)
				for _, f := range families {
					top.Node.SetSysctl(t, strings.ToLower(f.name[:2])+f.name[2:]+"/fib_multipath_hash_policy", policy)
					first := map[string]netip.Addr{"IPv4": testrig.OutsideIPv4, "IPv6": testrig.OutsideIPv6}[f.name]
					top.detour(t, f, fmt.Sprintf("route del default; route add default nexthop via %s dev %s nexthop via $hop dev %s",
						first, testrig.Uplink, secondUplink))
				}
				pods := top.attachAll(network{}, 2)
				streams := top.streams(t, ways[:1], pods, append(bothProtocols, bothProtocols...)...)
				awaitBegin(t, streams)
				// IPv6 hashes the flow label as well, of which an answer tells nothing:
				// whether it came in by the right uplink is then the stack's to say.
				ipv4 := slices.DeleteFunc(slices.Clone(streams), func(s *stream) bool { return !strings.HasPrefix(s.name, "IPv4") })
				if policy == "0" {
					top.account(t, ipv4...)
					top.wantCarried(t, ipv4...)
				}
				sniffers := []*testrig.Sniffer{top.Outside.Sniff(t, testrig.Uplink), top.Outside.Sniff(t, secondUplink)}
				wantUndisturbed(t, streams, "they began")
				for _, s := range streams {
					if n := [2]int{len(sniffers[0].Matching(s.arrives)), len(sniffers[1].Matching(s.arrives))}; n[0] > 0 && n[1] > 0 {
						t.Errorf("%s: %d packets came by the first uplink, %d by the second", s.name, n[0], n[1])
					}
				}
			})
		}
	}
}

// detour executes commands of ip for a family.
func (top *topology) detour(t *testing.T, f family, commands string) {
	t.Helper()
	words := strings.NewReplacer("$net", clusterCIDR(f), "$hop", secondHop[f.name].outside.String(), "$internet", f.outside.String())
	for _, command := range strings.Split(words.Replace(commands), "; ") {
		top.Node.MustRun(t, "ip", append([]string{ipFlag(f)}, strings.Fields(command)...)...)
	}
}

// wantLeavesBy waits until the packets of each stream reach the outside through a
// device, and then wants none through another.
func wantLeavesBy(t *testing.T, top *topology, device, not string, streams []*stream) {
	t.Helper()
	right := top.Outside.Sniff(t, device)
	for _, s := range streams {
		if _, ok := right.Wait(s.arrives, cutTime); !ok {
			t.Errorf("%s: no packet leaves by %s", s.name, device)
		}
	}
	// What was under way has arrived, on a busy machine too.
	time.Sleep(300 * time.Millisecond)
	wrong := top.Outside.Sniff(t, not)
	time.Sleep(500 * time.Millisecond)
	for _, s := range streams {
		if seen := wrong.Matching(s.arrives); len(seen) > 0 {
			t.Errorf("%s: %d packets leave by %s, as %s", s.name, len(seen), not, seen[0])
		}
	}
}

// arrives says whether a packet, seen where the server is, comes from the client.
func (s *stream) arrives(c testrig.Captured) bool {
	return !c.Outgoing && c.Dst == s.dial.Addr() && c.DstPort == s.port
}
