// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"slices"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// decisions are changes on the node, none of them a filter, that end flows in the
// kernel: $dev, $addr and $out are the container's device, its address and the
// destination outside.
var decisions = []struct {
	name     string
	do, undo string   // for a shell, by family
	ends     []string // ways
}{
	{
		name: "forwarding switched off",
		do:   "echo 0 >/proc/sys/net/$switch", undo: "echo 1 >/proc/sys/net/$switch",
		ends: []string{"to outside", "from outside", "to a service", "to a neighbour"},
	}, {
		name: "a blackhole for the destination",
		do:   "ip $v route add blackhole $out", undo: "ip $v route del blackhole $out",
		ends: []string{"to outside"},
	}, {
		name: "the container's route deleted",
		do:   "ip $v route del $addr dev $dev", undo: "ip $v route add $addr dev $dev proto 122",
		ends: []string{"from outside", "to a service", "to a neighbour"},
	},
}

// TestTheNodeDecidesOverRunningFlows changes what routes packets while eBPF carries
// flows: those that the kernel would no longer carry end in time, the others not,
// and all go on when it is undone.
func TestTheNodeDecidesOverRunningFlows(t *testing.T) {
	t.Parallel()
	for _, v := range honest {
		for _, d := range decisions {
			t.Run(v.name+", "+d.name, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				pods := top.attachAll(network{}, 2)
				top.publishAll(t, pods[0])
				var ending, lasting []crossing
				for _, w := range ways {
					if slices.Contains(d.ends, w.name) {
						ending = append(ending, w)
					} else {
						lasting = append(lasting, w)
					}
				}
				ended := top.streams(t, ending, pods, bothProtocols...)
				all := append(slices.Clone(ended), top.streams(t, lasting, pods, bothProtocols...)...)
				top.account(t, all...)
				top.wantCarried(t, all...)
				for _, f := range families {
					top.decide(t, f, pods[0], d.do)
				}
				awaitEach(t, ended, "ends", cutTime, func(s *stream) bool { return !s.there.moves(time.Now().Add(-stillness)) })
				// All of them at once.
				awaitEach(t, ended, "stays ended", 0, func(s *stream) bool { return !s.there.moves(time.Now().Add(-stillness)) })
				for _, f := range families {
					top.decide(t, f, pods[0], d.undo)
				}
				undone := time.Now()
				awaitEach(t, all, "goes on", 20*time.Second, func(s *stream) bool { return s.there.moves(undone) && s.back.moves(undone) })
			})
		}
	}
}

func (top *topology) decide(t *testing.T, f family, p *pod, command string) {
	t.Helper()
	forwarding := map[string]string{"ip": "ipv4/ip_forward", "ip6": "ipv6/conf/all/forwarding"}[f.nft]
	top.Node.MustRun(t, "sh", "-ec", "v="+ipFlag(f)+" switch="+forwarding+" dev="+hostDevice(p)+
		" addr="+f.addr(p).String()+" out="+f.outside.String()+"; "+command)
}

// TestOthersComeAndGo attaches and deletes containers while flows of others run.
func TestOthersComeAndGo(t *testing.T) {
	t.Parallel()
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			pods := top.attachAll(network{}, 2)
			top.publishAll(t, pods[0])
			streams := top.streams(t, ways, pods, bothProtocols...)
			awaitBegin(t, streams)
			for range 5 {
				p := top.attach(network{})
				for _, f := range families {
					reach(t, &p.Namespace, top.Outside, f.outside)
				}
				top.del(p)
			}
			wantUndisturbed(t, streams, "others came and went")
			var tracked []*stream
			for _, s := range streams {
				if v != directTier || s.dial != s.listen || s.to == top.Outside {
					tracked = append(tracked, s)
				}
			}
			top.account(t, tracked...)
			top.wantCarried(t, tracked...)
		})
	}
}
