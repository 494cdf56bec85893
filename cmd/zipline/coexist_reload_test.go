// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestFirewallReload removes everybody else's tables while flows run, as a
// firewall does that starts anew, and writes them again. Flows go on, our table
// is as it was, and new flows are translated meanwhile.
func TestFirewallReload(t *testing.T) {
	t.Parallel()
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			pods := top.attachAll(network{}, 2)
			rules := func() {
				top.publishAll(t, pods[0])
				for _, f := range families {
					top.Node.MustRunInput(t, `*filter
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
-A POSTROUTING -o other0 -j MASQUERADE
COMMIT
`, iptables(f)+"-restore")
				}
				top.Node.MustRunInput(t, fmt.Sprintf(`table inet firewalld {
	chain forward {
		type filter hook forward priority filter + 10
		ct state established,related accept
		ct status dnat accept
		ct state invalid drop
		meta l4proto { tcp, udp } th dport %s accept
	}
}`, streamPorts), "nft", "-f", "-")
			}
			rules()
			streams := top.streams(t, ways, pods, bothProtocols...)
			awaitBegin(t, streams)
			ours := top.Node.MustRun(t, "nft", "list", "table", "inet", "zipline")
			for range 2 {
				top.flushOthers(t)
				wantUndisturbed(t, streams, "the tables of others went")
				for _, f := range families {
					if peer := reach(t, &pods[1].Namespace, top.Outside, f.outside); peer != f.node {
						t.Errorf("%s: the outside sees %s", f.name, peer)
					}
				}
				rules()
				wantUndisturbed(t, streams, "the tables of others came back")
			}
			if now := top.Node.MustRun(t, "nft", "list", "table", "inet", "zipline"); now != ours {
				t.Errorf("our table was\n%s\nand is\n%s", ours, now)
			}
			for _, p := range pods {
				mustSucceed(t, "CHECK", p.Invoke(t, "CHECK", withPrevResult(t, p.config, p.result)))
			}
		})
	}
}

// flushOthers removes every table but ours.
func (top *topology) flushOthers(t *testing.T) {
	t.Helper()
	var batch strings.Builder
	for line := range strings.Lines(top.Node.MustRun(t, "nft", "list", "tables")) {
		if table := strings.TrimSpace(line); table != "table inet zipline" {
			_, _ = fmt.Fprintf(&batch, "delete %s\n", table)
		}
	}
	top.Node.MustRunInput(t, batch.String(), "nft", "-f", "-")
}

// wantUndisturbed watches that nothing stands still for long from now on.
func wantUndisturbed(t *testing.T, streams []*stream, when string) {
	t.Helper()
	const watch, longest = 4 * time.Second, 2500 * time.Millisecond
	for began := time.Now(); time.Since(began) < watch; time.Sleep(100 * time.Millisecond) {
		for _, s := range streams {
			for end, p := range map[string]*progress{"there": &s.there, "back": &s.back} {
				if still := min(time.Since(p.lastAt()), time.Since(began)); still > longest || s.failure() != nil {
					t.Errorf("%s, after %s: nothing %s for %v, error %v", s.name, when, end, still, s.failure())
					return
				}
			}
		}
	}
}

// TestStrictReversePath has rp_filter 1 on every device, also on those that the
// plugin makes, and flows of each kind that eBPF takes past the check.
func TestStrictReversePath(t *testing.T) {
	t.Parallel()
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{StrictReversePath: true, BridgeNetfilter: v == trackedTier})
			pods := top.attachAll(network{}, 2)
			other := top.attach(network{name: "other", segment: "seg1", v4: "10.78.0.0/16", v6: "fd00:78::/64"})
			top.Node.MustRun(t, "sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done")
			top.publishAll(t, pods[0])
			streams := append(top.streams(t, top.stackWays(), pods, bothProtocols...),
				// The other network is client of the first one's.
				top.streams(t, top.stackWays(), []*pod{pods[0], other}, bothProtocols...)...)
			for _, f := range families {
				reach(t, &pods[0].Namespace, &pods[1].Namespace, f.addr(pods[1]))
				reach(t, &other.Namespace, &pods[1].Namespace, f.addr(pods[1]))
				reach(t, &pods[0].Namespace, &top.Node.Namespace, f.gateway(pods[0]))
			}
			top.account(t, streams...)
			top.wantCarried(t, streams...)
			wantUndisturbed(t, streams, "they began")
		})
	}
}
