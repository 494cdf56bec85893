// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/loader"
)

// minCarried is the share of a connection's packets that eBPF has to carry. The
// first packets and the last ones of every flow are the kernel's.
const minCarried = 0.95

// proof reads a node's counters to show which way the packets of a connection
// have gone.
type proof struct {
	node *testrig.Node
	// judge compares the counters of before and after a connection with what
	// has to be so. It returns the smallest share of packets that eBPF has
	// carried in any program, and a complaint or "". Transactions are 0 where
	// nobody knows how many packets there have to be.
	judge func(before, after tallies, transactions uint64) (share float64, complaint string)
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

// met returns what a program has met between two readings.
func met(before, after tallies, hook bpf.Hook) tally {
	return tally{after[hook].carried - before[hook].carried, after[hook].left - before[hook].left}
}

// carriedBy returns the judge of a path that eBPF has to carry nearly all packets
// of, given how many packets each program meets for a transaction.
func carriedBy(carriers map[bpf.Hook]int) func(before, after tallies, transactions uint64) (float64, string) {
	return func(before, after tallies, transactions uint64) (share float64, complaint string) {
		share = 1
		for hook := range bpf.Hook(bpf.Hooks) {
			packets, carrier := carriers[hook]
			if !carrier {
				continue
			}
			got := met(before, after, hook)
			if want := minCarried * float64(packets) * float64(transactions); got.carried == 0 || float64(got.carried) < want {
				return 0, fmt.Sprintf("%s carried %d packets past the stack, left %d; transactions: %d", hook, got.carried, got.left, transactions)
			}
			share = min(share, float64(got.carried)/float64(got.carried+got.left))
		}
		if share < minCarried {
			complaint = fmt.Sprintf("only %.1f %% of the packets carried past the stack", share*100)
		}
		return share, complaint
	}
}

// carriedByNone judges a path where eBPF has to carry nothing.
func carriedByNone(before, after tallies, _ uint64) (float64, string) {
	for hook := range bpf.Hook(bpf.Hooks) {
		if n := met(before, after, hook).carried; n > 0 {
			return 0, fmt.Sprintf("%s carried %d packets past the stack", hook, n)
		}
	}
	return 0, ""
}

// taxedBy returns the judge of a path whose packets meet a program that carries
// none of them, or where that program is off, and meets nothing.
func taxedBy(hook bpf.Hook, on bool) func(before, after tallies, transactions uint64) (float64, string) {
	return func(before, after tallies, transactions uint64) (float64, string) {
		got := met(before, after, hook)
		switch {
		case got.carried > 0:
			return 0, fmt.Sprintf("%s carried %d packets past the stack", hook, got.carried)
		case on && (got.left == 0 || got.left < transactions):
			return 0, fmt.Sprintf("%s met %d packets; transactions: %d", hook, got.left, transactions)
		case !on && got.left > 0:
			return 0, fmt.Sprintf("%s met %d packets while it was off", hook, got.left)
		}
		return 0, ""
	}
}
