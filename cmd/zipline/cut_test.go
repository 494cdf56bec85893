// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// How long a flow may go on after a rule was written that drops its packets.
const (
	// cutTime is for a flow that eBPF carries: two check-ins of 2 s, and what a
	// busy machine needs.
	cutTime = 4*time.Second + 2*time.Second
	// cutAtOnce is for a flow that the stack carries, or whose entry is deleted.
	cutAtOnce = 2 * time.Second
	// stillness is how long nothing arrives of a flow that ended.
	stillness = 1500 * time.Millisecond
)

// cut is a stream and what is done to it.
type cut struct {
	*stream
	there, back bool // directions that a rule drops
	forget      bool // conntrack -D after the rule is written
	forgotten   time.Time
	place       place
}

// place is where a rule drops packets.
type place struct{ iptables, nft string }

// places are before conntrack has seen a packet, between, and after it was
// translated.
var places = []place{
	{nft: "forward { type filter hook forward priority filter; }"},
	{iptables: "FORWARD"},
	{nft: "pre { type filter hook prerouting priority raw; }"},
	{nft: "post { type filter hook postrouting priority 300; }"},
}

// TestDropRulesCutRunningFlows lets streams run until eBPF carries them, drops
// one direction of each or both, and looks when they end; then takes the rules
// away and looks whether they go on.
func TestDropRulesCutRunningFlows(t *testing.T) {
	t.Parallel()
	for _, v := range tiers {
		for _, f := range families {
			if v == directTier && f.nft == "ip6" {
				continue // what it carries past the stack obeys no rule; the rest is as in tracked
			}
			t.Run(v.name+" "+f.name, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				pods := top.attachAll(network{}, 2)
				top.publish(t, f, f.addr(pods[0]))
				cuts := top.startCuts(t, f, pods)
				var streams []*stream
				for _, c := range cuts {
					streams = append(streams, c.stream)
				}
				top.account(t, streams...)
				top.wantCarried(t, streams...)
				if t.Failed() {
					return
				}
				ruled := top.drop(t, f, cuts)
				wantCut(t, v, ruled, cuts)
				top.Node.MustRun(t, "nft", "delete", "table", "inet", "other")
				top.Node.MustRun(t, iptables(f), "-F", "FORWARD")
				freed := time.Now()
				awaitEach(t, streams, "goes on after the cut", 20*time.Second, func(s *stream) bool {
					return s.there.moves(freed) && (s.talk != bothTalk || s.back.moves(freed))
				})
				for _, s := range streams {
					if err := s.failure(); err != nil {
						t.Errorf("%s: %v", s.name, err)
					}
				}
			})
		}
	}
}

func iptables(f family) string {
	if f.nft == "ip6" {
		return "ip6tables"
	}
	return "iptables"
}

// startCuts starts a stream for each way, protocol and manner to cut it.
func (top *topology) startCuts(t *testing.T, f family, pods []*pod) []*cut {
	t.Helper()
	var cuts []*cut
	for _, w := range top.stackWays() {
		for _, network := range []string{"tcp", "udp"} {
			for _, c := range []*cut{{there: true}, {back: true}, {there: true, back: true}, {there: true, back: true, forget: true}} {
				spec := streamSpec{network: network, talk: bothTalk}
				if network == "tcp" {
					spec.size = 16 << 10
				}
				// A server that talks when its entry is gone talks to the node.
				if c.forget {
					spec.talk = map[string]talk{"tcp": clientTalks, "udp": answerOnce}[network]
				}
				// Each place for each manner, way and protocol in turn.
				n := len(cuts)
				if f.nft == "ip6" {
					n++
				}
				c.place = places[(n+n/4)%len(places)]
				c.stream = top.stream(t, w, f, pods, spec)
				cuts = append(cuts, c)
			}
		}
	}
	return cuts
}

// drop writes the rules and deletes entries, and returns when the rules held.
func (top *topology) drop(t *testing.T, f family, cuts []*cut) time.Time {
	t.Helper()
	var nft, tables []string
	for _, p := range places {
		if p.nft != "" {
			nft = append(nft, "add chain inet other "+p.nft)
		}
	}
	for _, c := range cuts {
		for port, drops := range map[string]bool{"dport": c.there, "sport": c.back} {
			switch chain, _, _ := strings.Cut(c.place.nft, " "); {
			case drops && c.place.iptables != "":
				tables = append(tables, fmt.Sprintf("-A %s -p %s --%s %d -j DROP", c.place.iptables, c.network, port, c.port))
			case drops:
				nft = append(nft, fmt.Sprintf("add rule inet other %s %s %s %d drop", chain, c.network, port, c.port))
			}
		}
	}
	top.Node.MustRunInput(t, "add table inet other\n"+strings.Join(nft, "\n")+"\n", "nft", "-f", "-")
	top.Node.MustRunInput(t, "*filter\n"+strings.Join(tables, "\n")+"\nCOMMIT\n", iptables(f)+"-restore", "--noflush")
	ruled := time.Now()
	for _, c := range cuts {
		if c.forget {
			family := map[string]string{"ip": "ipv4", "ip6": "ipv6"}[f.nft]
			top.Node.MustRun(t, "conntrack", "-D", "-f", family, "-p", c.network, "--orig-port-dst", fmt.Sprint(c.port))
			c.forgotten = time.Now()
		}
	}
	return ruled
}

// wantCut checks when each direction of the streams received something last.
func wantCut(t *testing.T, v variant, ruled time.Time, cuts []*cut) {
	t.Helper()
	var streams []*stream
	for _, c := range cuts {
		streams = append(streams, c.stream)
	}
	awaitEach(t, streams, "is cut", cutTime+stillness, func(s *stream) bool {
		c := cuts[slices.Index(streams, s)]
		still := func(p *progress) bool { return !p.moves(time.Now().Add(-stillness)) }
		return (still(&s.there) || !c.there && s.network == "udp") && (still(&s.back) || !c.back && s.network == "udp")
	})
	now := time.Now()
	var slowest time.Duration
	for _, c := range cuts {
		for _, d := range []struct {
			name  string
			drops bool
			*progress
		}{{"there", c.there, &c.stream.there}, {"back", c.back, &c.stream.back}} {
			if d.name == "back" && c.talk != bothTalk {
				continue
			}
			// TCP needs both directions for either.
			drops := d.drops || c.network == "tcp"
			last, limit := d.lastAt().Sub(ruled), cutTime
			if v == kernelTier {
				limit = cutAtOnce
			} else if c.forget {
				limit = c.forgotten.Sub(ruled) + cutAtOnce
			}
			switch {
			case drops && last > limit:
				t.Errorf("%s, dropped there %v, back %v, at %v, entry deleted %v: bytes %s came %v after the rule",
					c.name, c.there, c.back, c.place, c.forget, d.name, last)
			case !drops && now.Sub(d.lastAt()) > time.Second:
				t.Errorf("%s, dropped there %v, back %v: the other direction, %s, stood still after %v", c.name, c.there, c.back, d.name, last)
			case drops:
				slowest = max(slowest, last)
			}
		}
	}
	t.Logf("the last bytes arrived %v after the rules", slowest.Round(time.Millisecond))
}
