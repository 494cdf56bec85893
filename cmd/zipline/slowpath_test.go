// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
	"github.com/zipline-cni/zipline/loader"
)

// markedTalks have one whose answers do not come by: an answer that the stack
// forwards would take away what the other direction is carried by.
var markedTalks = []streamSpec{{network: "tcp"}, {network: "udp", talk: answerOnce}}

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
				top.publishAll(t, pods[0])
				var marked, late, alien []*stream
				for _, f := range families {
					for _, w := range top.stackWays() {
						for _, spec := range markedTalks {
							start := func(set string) *stream {
								spec.port = nextPort()
								top.Node.MustRun(t, "nft", "add", "element", "inet", "marker", set, fmt.Sprintf("{ %s . %d }", spec.network, spec.port))
								return top.stream(t, w, f, pods, spec)
							}
							marked, alien = append(marked, start("marked")), append(alien, start("alien"))
							spec.port = 0
							late = append(late, top.stream(t, w, f, pods, spec))
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
			top.publishAll(t, pods[0])
			streams := top.streams(t, ways, pods, streamSpec{network: "tcp"})
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
			top.publishAll(t, pods[0])
			all := top.streams(t, ways, pods, bothProtocols...)
			others := top.streams(t, ways[:1], pods[1:], bothProtocols...)
			awaitBegin(t, all)
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
			value, _ := top.Node.Sysctl(t, key)
			if v == kernelTier {
				if value != "0" {
					t.Errorf("%s is %s after an ADD that needs it not", key, value)
				}
				return
			}
			if value != "1" {
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

// TestConntrackThatCannotBeLiberal attaches where the switch cannot be set: a
// warning says that established flows stay in the stack. CHECK takes that for
// what it is, unless they were asked for by name or the switch is on since.
func TestConntrackThatCannotBeLiberal(t *testing.T) {
	t.Parallel()
	const key = "netfilter/nf_conntrack_tcp_be_liberal"
	for forwarding, finding := range map[string]string{"auto": "", "direct": "", "tracked": key + " is not 1"} {
		t.Run(forwarding, func(t *testing.T) {
			t.Parallel()
			testutil.RequireKernel(t, "conntrack functions", loader.HaveConntrack())
			top := newTopology(t, trackedTier, testrig.Options{})
			top.Node.SetSysctl(t, "netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1")
			top.Node.SetSysctl(t, key, "0")
			file := "/proc/sys/net/" + key
			top.Node.MustRun(t, "mount", "--bind", file, file)
			top.Node.MustRun(t, "mount", "-o", "remount,bind,ro", file)
			c, config := top.container(), network{keys: map[string]any{"forwarding": forwarding}}.config(top.v)
			reply := c.Invoke(t, "ADD", config)
			if err := reply.Err(); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(reply.Stderr, "stay in the stack") {
				t.Errorf("stderr %q; want a warning", reply.Stderr)
			}
			p := newPod(t, c, config, parseResult(t, reply.Stdout))
			for _, f := range families {
				reach(t, &p.Namespace, top.Outside, f.outside)
			}
			config = withPrevResult(t, p.config, p.result)
			if finding == "" {
				mustSucceed(t, "CHECK", p.Invoke(t, "CHECK", config))
			} else {
				wantError(t, p.Invoke(t, "CHECK", config), codeCheckFailed, "", finding)
			}
			top.Node.MustRun(t, "umount", file)
			top.Node.SetSysctl(t, key, "1")
			wantError(t, p.Invoke(t, "CHECK", config), codeCheckFailed, "", "keeps established flows in the stack")
		})
	}
}
