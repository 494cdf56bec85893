// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestMarkedFlowsStayInTheStack has rules of somebody's that mark connections:
// from their first packet, while they run, and no more.
func TestMarkedFlowsStayInTheStack(t *testing.T) {
	t.Parallel()
	for _, v := range tiers {
		for value, word := range map[string]any{"number": 0x10, "text": "0x10"} {
			if value == "text" && v != trackedTier {
				continue
			}
			t.Run(v.name+" "+value, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				pods := top.attachAll(network{keys: map[string]any{"slowPathMark": word}}, 2)
				top.Node.MustRunInput(t, `table inet marker {
	set marked { type inet_proto . inet_service; }
	set alien { type inet_proto . inet_service; }
	chain pre {
		type filter hook prerouting priority mangle
		meta l4proto . th dport @marked ct mark set ct mark or 0x30
		meta l4proto . th dport @alien ct mark set ct mark or 0x20
	}
}`, "nft", "-f", "-")
				var marked, late, alien []*stream
				for _, f := range families {
					top.publish(t, f, f.addr(pods[0]))
					for _, w := range ways {
						if w.neighbours && v == directTier {
							continue
						}
						for _, protocol := range []string{"tcp", "udp"} {
							start := func(set string) *stream {
								port := nextPort()
								top.Node.MustRun(t, "nft", "add", "element", "inet", "marker", set, fmt.Sprintf("{ %s . %d }", protocol, port))
								return top.stream(t, w, f, pods, streamSpec{network: protocol, port: port})
							}
							marked, alien = append(marked, start("marked")), append(alien, start("alien"))
							late = append(late, top.stream(t, w, f, pods, streamSpec{network: protocol}))
						}
					}
				}
				top.account(t, append(append(append([]*stream{}, marked...), late...), alien...)...)
				top.wantInStack(t, marked...)
				top.wantCarried(t, append(alien, late...)...)
				for _, s := range late {
					top.Node.MustRun(t, "nft", "add", "element", "inet", "marker", "marked", fmt.Sprintf("{ %s . %d }", s.network, s.port))
				}
				// A rule acts when the flow checks in.
				time.Sleep(cutTime)
				top.wantInStack(t, late...)
				top.Node.MustRun(t, "nft", "delete", "table", "inet", "marker")
				for _, family := range []string{"ipv4", "ipv6"} {
					top.Node.MustRun(t, "conntrack", "-U", "-f", family, "--mark", "0/0x30")
				}
				top.wantCarried(t, append(marked, late...)...)
			})
		}
	}
}

// TestTimeoutPolicies has rules that give entries a timeout of their own: it is not
// ours to prolong, and the flow goes on.
func TestTimeoutPolicies(t *testing.T) {
	t.Parallel()
	for _, v := range honest {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			pods := top.attachAll(network{}, 2)
			top.Node.MustRunInput(t, `table inet others {
	ct timeout short4 { protocol tcp; l3proto ip; policy = { established : 60 }; }
	ct timeout short6 { protocol tcp; l3proto ip6; policy = { established : 60 }; }
	chain pre {
		type filter hook prerouting priority -150
		meta nfproto ipv4 tcp dport `+streamPorts+` ct timeout set "short4"
		meta nfproto ipv6 tcp dport `+streamPorts+` ct timeout set "short6"
	}
}`, "nft", "-f", "-")
			var streams []*stream
			for _, f := range families {
				top.publish(t, f, f.addr(pods[0]))
				for _, w := range ways {
					streams = append(streams, top.stream(t, w, f, pods, streamSpec{network: "tcp"}))
				}
			}
			wantUndisturbed(t, streams, "they began")
			entries := top.entries(t)
			for _, s := range streams {
				if e := entries[s.port]; len(e) != 1 || e[0].remaining > 60 || e[0].remaining < 50 {
					t.Errorf("%s: entries %v; want 60 s under traffic", s.name, e)
				}
			}
		})
	}
}

// TestDeletionUnderTraffic deletes an attachment while its flows run: their
// entries go, and no packet that is under way makes one again.
func TestDeletionUnderTraffic(t *testing.T) {
	t.Parallel()
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			pods := top.attachAll(network{}, 2)
			var all, others []*stream
			for _, f := range families {
				top.publish(t, f, f.addr(pods[0]))
				for _, protocol := range []string{"tcp", "udp"} {
					for _, w := range ways {
						all = append(all, top.stream(t, w, f, pods, streamSpec{network: protocol}))
					}
					others = append(others, top.stream(t, ways[0], f, pods[1:], streamSpec{network: protocol}))
				}
			}
			awaitEach(t, all, "begins", begin, func(s *stream) bool { return s.back.bytes.Load() > 20*streamSize })
			top.del(pods[0])
			deleted := time.Now()
			for time.Since(deleted) < 2*time.Second {
				for _, f := range families {
					if left := top.Node.Conntrack(t, f.addr(pods[0]).String()); left != nil {
						t.Fatalf("%s: left %v after DEL: %q", f.name, time.Since(deleted), left)
					}
				}
				time.Sleep(200 * time.Millisecond)
			}
			// What had arrived before may be read late on a busy machine.
			late := deleted.Add(500 * time.Millisecond)
			for _, s := range all {
				if s.there.moves(late) || s.back.moves(late) {
					t.Errorf("%s: bytes arrive after DEL", s.name)
				}
			}
			wantUndisturbed(t, others, "DEL of another container")
			// The programs stay on the uplink for those that are left.
			top.account(t, others...)
			top.wantCarried(t, others...)
		})
	}
}

// TestConntrackIsLiberal holds ADD to a switch of the node: conntrack, which sees
// few packets of a flow, must not call them invalid. CHECK finds it switched off.
func TestConntrackIsLiberal(t *testing.T) {
	t.Parallel()
	const key = "netfilter/nf_conntrack_tcp_be_liberal"
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			top.Node.SetSysctl(t, key, "0")
			p := top.attach(network{})
			config := withPrevResult(t, p.config, p.result)
			if v == kernelTier {
				return
			}
			if value, _ := top.Node.Sysctl(t, key); value != "1" {
				t.Errorf("%s is %s after ADD", key, value)
			}
			mustSucceed(t, "CHECK", p.Invoke(t, "CHECK", config))
			top.Node.SetSysctl(t, key, "0")
			wantError(t, p.Invoke(t, "CHECK", config), codeCheckFailed, "", "nf_conntrack_tcp_be_liberal")
			top.Node.SetSysctl(t, key, "1")
			mustSucceed(t, "CHECK", p.Invoke(t, "CHECK", config))
		})
	}
}
