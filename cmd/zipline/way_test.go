// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/loader"
)

// honest are the tiers in which a drop rule has to end every flow.
var honest = []variant{kernelTier, trackedTier}

// crossing is how a flow crosses the node.
type crossing struct {
	name string
	// neighbours says that in tier direct the stack never sees this.
	neighbours bool
	ends       func(top *topology, pods []*pod) (from, to *testrig.Namespace)
	dial       func(f family, pods []*pod) netip.Addr
	listen     func(f family, pods []*pod) netip.Addr
}

func firstPod(f family, pods []*pod) netip.Addr { return f.addr(pods[0]) }

// ways are all that a flow of a container can cross the node. Those through the
// node's address and the service's need [topology.publish].
var ways = []crossing{
	{
		name: "to outside",
		ends: func(top *topology, pods []*pod) (from, to *testrig.Namespace) { return &pods[0].Namespace, top.Outside },
		dial: func(f family, _ []*pod) netip.Addr { return f.outside }, listen: func(f family, _ []*pod) netip.Addr { return f.outside },
	}, {
		name: "from outside",
		ends: func(top *topology, pods []*pod) (from, to *testrig.Namespace) { return top.Outside, &pods[0].Namespace },
		dial: func(f family, _ []*pod) netip.Addr { return f.node }, listen: firstPod,
	}, {
		name: "to a service",
		ends: func(_ *topology, pods []*pod) (from, to *testrig.Namespace) {
			return &pods[1].Namespace, &pods[0].Namespace
		},
		dial: func(f family, _ []*pod) netip.Addr { return f.service }, listen: firstPod,
	}, {
		name: "to a neighbour", neighbours: true,
		ends: func(_ *topology, pods []*pod) (from, to *testrig.Namespace) {
			return &pods[1].Namespace, &pods[0].Namespace
		},
		dial: firstPod, listen: firstPod,
	},
}

// begin is how long a stream may take to get going on a busy machine.
const begin = 10 * time.Second

// Ports of streams: each has one of its own, by which rules and entries know it.
const (
	firstStreamPort, lastStreamPort = 20000, 29999
	streamPorts                     = "20000-29999"
)

var ports atomic.Uint32

// nextPort returns a port that no other stream of the process has.
func nextPort() uint16 {
	return uint16(firstStreamPort + ports.Add(1)%(lastStreamPort-firstStreamPort))
}

// publish leads the streams' ports of the node and of the service address to a
// container, as somebody's rules do.
func (top *topology) publish(t *testing.T, f family, to netip.Addr) {
	t.Helper()
	top.Node.MustRunInput(t, fmt.Sprintf(`table %[1]s publisher {
	chain pre {
		type nat hook prerouting priority dstnat
		%[1]s daddr { %[2]s, %[3]s } meta l4proto { tcp, udp } th dport %[4]d-%[5]d dnat to %[6]s
	}
}`, f.nft, f.node, f.service, firstStreamPort, lastStreamPort, to), "nft", "-f", "-")
}

// publishAll publishes a container in every family.
func (top *topology) publishAll(t *testing.T, to *pod) {
	t.Helper()
	for _, f := range families {
		top.publish(t, f, f.addr(to))
	}
}

// stackWays returns the ways on which the stack sees each flow in this tier.
func (top *topology) stackWays() []crossing {
	return slices.DeleteFunc(slices.Clone(ways), func(w crossing) bool { return w.neighbours && top.v == directTier })
}

// bothProtocols are streams of which nothing else is said.
var bothProtocols = []streamSpec{{network: "tcp"}, {network: "udp"}}

// streams starts streams of each sort along each of some ways in every family.
func (top *topology) streams(t *testing.T, along []crossing, pods []*pod, specs ...streamSpec) []*stream {
	t.Helper()
	var all []*stream
	for _, f := range families {
		for _, w := range along {
			for _, spec := range specs {
				all = append(all, top.stream(t, w, f, pods, spec))
			}
		}
	}
	return all
}

// stream starts a stream along a way, to a port of its own.
func (top *topology) stream(t *testing.T, w crossing, f family, pods []*pod, spec streamSpec) *stream {
	t.Helper()
	if spec.port == 0 {
		spec.port = nextPort()
	}
	spec.from, spec.to = w.ends(top, pods)
	spec.dial = netip.AddrPortFrom(w.dial(f, pods), spec.port)
	spec.listen = netip.AddrPortFrom(w.listen(f, pods), spec.port)
	return start(t, fmt.Sprintf("%s %s %s (port %d)", f.name, spec.network, w.name, spec.port), spec)
}

// account makes the stack count what it forwards of each stream. Whatever it does
// not count went another way.
func (top *topology) account(t *testing.T, streams ...*stream) {
	t.Helper()
	var text strings.Builder
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(&text, format+"\n", args...) }
	say("table inet account {")
	for _, s := range streams {
		say("counter there%[1]d { }\ncounter back%[1]d { }", s.port)
	}
	say("chain forward {\ntype filter hook forward priority -500")
	for _, s := range streams {
		say("meta l4proto %[1]s th dport %[2]d counter name there%[2]d", s.network, s.port)
		say("meta l4proto %[1]s th sport %[2]d counter name back%[2]d", s.network, s.port)
	}
	say("}\n}")
	top.Node.MustRunInput(t, text.String(), "nft", "-f", "-")
}

// forwarded returns the bytes that account counted, by counter.
func (top *topology) forwarded(t *testing.T) map[string]int64 {
	t.Helper()
	var list struct {
		Objects []struct {
			Counter struct {
				Name  string `json:"name"`
				Bytes int64  `json:"bytes"`
			} `json:"counter"`
		} `json:"nftables"`
	}
	out := top.Node.MustRun(t, "nft", "-j", "list", "counters", "table", "inet", "account")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("parse counters: %v", err)
	}
	bytes := map[string]int64{}
	for _, object := range list.Objects {
		bytes[object.Counter.Name] = object.Counter.Bytes
	}
	return bytes
}

// Shares of a stream's bytes that the stack may, or must, forward.
const acceleratedShare, stackShare = 0.5, 0.75

// wantCarried checks which way the bytes of streams go: all through the stack in
// tier kernel, hardly any in the others. The streams have to be accounted for.
func (top *topology) wantCarried(t *testing.T, streams ...*stream) {
	t.Helper()
	before, failed := top.counters(t), false
	for s, share := range top.stackShares(t, streams) {
		if stack := top.v == kernelTier; stack && share < stackShare || !stack && share > acceleratedShare {
			t.Errorf("%s: the stack forwarded %.2f of the bytes", s.name, share)
			failed = true
		}
	}
	if failed {
		t.Logf("counters before: %s\nafter: %s", before, top.counters(t))
	}
}

// counters returns what the programs count, in words.
func (top *topology) counters(t *testing.T) string {
	t.Helper()
	var words []string
	err := top.Node.Do(func() error {
		counters, err := loader.ReadCounters()
		for _, c := range counters {
			words = append(words, fmt.Sprintf("%v %v %d", c.Hook, c.Reason, c.Packets))
		}
		return err
	})
	if err != nil {
		return err.Error()
	}
	return strings.Join(words, ", ")
}

// wantInStack checks that the stack forwards the bytes of streams on every tier.
func (top *topology) wantInStack(t *testing.T, streams ...*stream) {
	t.Helper()
	for s, share := range top.stackShares(t, streams) {
		if share < stackShare {
			t.Errorf("%s: the stack forwarded %.2f of the bytes", s.name, share)
		}
	}
}

// stackShares returns which part of the bytes that arrive at the servers the
// stack forwards. The first packets, which it does on every tier, are left out.
func (top *topology) stackShares(t *testing.T, streams []*stream) map[*stream]float64 {
	t.Helper()
	awaitEach(t, streams, "moves", begin, func(s *stream) bool { return s.there.bytes.Load() > 10*int64(s.size) })
	before, started := top.forwarded(t), time.Now()
	received := map[*stream]int64{}
	for _, s := range streams {
		received[s] = s.there.bytes.Load()
	}
	awaitEach(t, streams, "goes on", testrig.Timeout, func(s *stream) bool {
		return time.Since(started) > 2*time.Second && s.there.moves(started)
	})
	after, shares := top.forwarded(t), map[*stream]float64{}
	for _, s := range streams {
		name := fmt.Sprintf("there%d", s.port)
		shares[s] = float64(after[name]-before[name]) / float64(s.there.bytes.Load()-received[s])
	}
	return shares
}

// awaitBegin waits until each stream is past its first packets, both ways.
func awaitBegin(t *testing.T, streams []*stream) {
	t.Helper()
	awaitEach(t, streams, "begins", begin, func(s *stream) bool { return s.back.bytes.Load() > 20*streamSize })
}

// awaitEach waits until something holds for each stream, and says for which not.
func awaitEach(t *testing.T, streams []*stream, what string, timeout time.Duration, holds func(*stream) bool) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for _, s := range streams {
		for !holds(s) {
			if time.Now().After(deadline) {
				t.Errorf("%s: it never %s: %d bytes there, %d back, error %v",
					s.name, what, s.there.bytes.Load(), s.back.bytes.Load(), s.failure())
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// watchInvalid counts what conntrack calls invalid of the flows to some ports, and
// returns a function that wants to find none: such packets are not translated,
// and most firewalls drop them. Resets of connections long gone are no harm.
func (top *topology) watchInvalid(t *testing.T, ports string) (wantNone func()) {
	t.Helper()
	top.Node.MustRunInput(t, fmt.Sprintf(`table inet invalid {
	chain forward {
		type filter hook forward priority -500
		tcp flags & rst == rst return
		meta l4proto { tcp, udp } th dport %[1]s ct state invalid counter
		meta l4proto { tcp, udp } th sport %[1]s ct state invalid counter
	}
}`, ports), "nft", "-f", "-")
	return func() {
		t.Helper()
		rules := top.Node.MustRun(t, "nft", "list", "table", "inet", "invalid")
		if strings.Count(rules, "counter packets 0 ") != 2 {
			t.Errorf("conntrack called packets invalid:\n%s", rules)
		}
	}
}
