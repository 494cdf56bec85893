// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/loader"
)

const (
	// minCarried is the share of a connection's packets that eBPF has to carry.
	minCarried = 0.95
	// ownPackets is how many packets of each connection the kernel gets beside, in
	// every program: the first ones and the last ones of a flow. They count where
	// many connections share the time.
	ownPackets = 16
)

// proof reads a node's counters to show which way the packets of a connection
// have gone.
type proof struct {
	node *testrig.Node
	// judge compares the counters of before and after a connection with what
	// has to be so.
	judge wayJudge
}

// wayJudge returns the smallest share of packets that eBPF has carried in any program,
// and a complaint or "".
type wayJudge func(before, after tallies, s FlowSample) (share float64, complaint string)

// packets returns what a sample's units took at least, one way: a packet each, or
// nobody knows how many.
func (s FlowSample) packets() uint64 {
	if s.Workload.Bulk() {
		return 0
	}
	return s.Units
}

// tally is how many packets a program has carried past the stack, and how many it
// has left to the stack or dropped.
type tally struct{ carried, left uint64 }

type tallies map[bpf.Hook]tally

// count reads the counters of the node. A node without programs has none.
func (p *proof) count() (tallies, error) {
	found := tallies{}
	err := p.node.Do(func() error {
		counters, err := loader.ReadCounters()
		for _, c := range counters {
			found[c.Hook] = found[c.Hook].add(c)
		}
		return err
	})
	if err != nil && !errors.Is(err, loader.ErrNotLoaded) {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	return found, nil
}

// add counts what belongs to traffic.
func (t tally) add(c loader.Counter) tally {
	switch {
	case c.Reason.OwnAccount():
	case c.Reason.Verdict() == bpf.VerdictRedirect:
		t.carried += c.Packets
	default:
		t.left += c.Packets
	}
	return t
}

// share returns the part that was carried, 0 of nothing.
func (t tally) share() float64 {
	if t.carried == 0 {
		return 0
	}
	return float64(t.carried) / float64(t.carried+t.left)
}

// met returns what a program has met between two readings.
func met(before, after tallies, hook bpf.Hook) tally {
	return tally{after[hook].carried - before[hook].carried, after[hook].left - before[hook].left}
}

// carriedBy returns the judge of a path that eBPF has to carry nearly all packets
// of, given how many packets each program meets for a unit at least.
func carriedBy(carriers map[bpf.Hook]int) wayJudge {
	return func(before, after tallies, s FlowSample) (share float64, complaint string) {
		share = 1
		for hook := range bpf.Hook(bpf.Hooks) {
			packets, carrier := carriers[hook]
			if !carrier {
				continue
			}
			got := met(before, after, hook)
			if want := minCarried * float64(packets) * float64(s.packets()); got.carried == 0 || float64(got.carried) < want {
				return 0, fmt.Sprintf("%s carried %d packets past the stack, left %d; units: %d", hook, got.carried, got.left, s.Units)
			}
			if left := got.left - min(got.left, uint64(ownPackets*s.Connections)); float64(left) > (1-minCarried)*float64(got.carried+left) {
				complaint = fmt.Sprintf("only %.1f %% of the packets carried past the stack", got.share()*100)
			}
			share = min(share, got.share())
		}
		return share, complaint
	}
}

// carriedByChance returns the judge of a path where programs meet packets, and
// nobody asks which of those they carry.
func carriedByChance(hooks map[bpf.Hook]int) wayJudge {
	return func(before, after tallies, _ FlowSample) (share float64, complaint string) {
		share = 1
		for hook := range hooks {
			share = min(share, met(before, after, hook).share())
		}
		return share, ""
	}
}

// carriedByNone judges a path where eBPF has to carry nothing.
func carriedByNone(before, after tallies, _ FlowSample) (float64, string) {
	for hook := range bpf.Hook(bpf.Hooks) {
		if n := met(before, after, hook).carried; n > 0 {
			return 0, fmt.Sprintf("%s carried %d packets past the stack", hook, n)
		}
	}
	return 0, ""
}

// taxedBy returns the judge of a path whose packets meet a program that carries
// none of them, or where that program is off, and meets nothing.
func taxedBy(hook bpf.Hook, on bool) wayJudge {
	return func(before, after tallies, s FlowSample) (float64, string) {
		got := met(before, after, hook)
		switch {
		case got.carried > 0:
			return 0, fmt.Sprintf("%s carried %d packets past the stack", hook, got.carried)
		case on && (got.left == 0 || got.left < s.packets()):
			return 0, fmt.Sprintf("%s met %d packets; units: %d", hook, got.left, s.Units)
		case !on && got.left > 0:
			return 0, fmt.Sprintf("%s met %d packets while it was off", hook, got.left)
		}
		return 0, ""
	}
}
