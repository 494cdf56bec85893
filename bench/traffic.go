// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/tbrun"
)

// DefaultTrafficOptions are those of the project's targets.
func DefaultTrafficOptions() FlowOptions {
	return FlowOptions{
		Rounds: 60, Duration: 400 * time.Millisecond, Warmup: 100 * time.Millisecond,
		Workloads: []Workload{TCPRR, TCPStream},
		Subjects:  []Subject{Wire, WireAgain, Bridge, Tracked, Direct, Kernel, Zipline},
		Placement: Together, Seed: 1,
	}
}

// Traffic measures connections of containers that the plugin under test has
// attached beside those of the reference bridge and of a bare veth pair, in
// private nodes that end with the run, and returns its report. It needs root.
func Traffic(ctx context.Context, opts FlowOptions) (*FlowReport, error) {
	if opts.Progress == nil {
		opts.Progress = io.Discard
	}
	var report *FlowReport
	err := tbrun.Run(ctx, opts.Progress, func(tb testing.TB) {
		r, err := newFlowRun(tb, opts)
		if err == nil {
			err = r.measureTraffic()
		}
		if err != nil {
			tb.Fatal(err)
		}
		report = newFlowReport(opts, []Subject{Wire, Bridge}, r.samples, trafficTargets)
	})
	return report, err
}

// cell is a part of a round.
type cell struct {
	path     Path
	workload Workload
}

// cells returns the parts of a round.
func cells(paths []Path, workloads []Workload) []cell {
	var all []cell
	for _, p := range paths {
		for _, w := range workloads {
			all = append(all, cell{p, w})
		}
	}
	return all
}

func (r *flowRun) measureTraffic() error {
	plugins := newPlugins(r.tb, r.opts.Zipline, r.opts.Plugins)
	lanes := map[Subject]map[Path]lane{}
	for _, s := range r.opts.Subjects {
		r.progress(fmt.Sprintf("world of %s", s))
		var err error
		if s == Wire || s == WireAgain {
			lanes[s], err = newWire(r.tb)
		} else if plugin, known := plugins[s]; known {
			lanes[s], err = newPluginWorld(r.tb, s, plugin)
		} else {
			err = fmt.Errorf("no such subject")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return r.rounds(cells([]Path{Local, Outside}, r.opts.Workloads), r.opts.Subjects,
		func(s Subject, p Path) (lane, error) { return lanes[s][p], nil })
}

// rounds measures every subject in every cell of each round, in random order.
// The subjects of one cell follow each other, because they are compared.
func (r *flowRun) rounds(cells []cell, subjects []Subject, enter func(Subject, Path) (lane, error)) error {
	for round := range r.opts.Rounds {
		r.progress(fmt.Sprintf("round %d of %d", round+1, r.opts.Rounds))
		for _, c := range shuffled(r.random, cells...) {
			for _, s := range shuffled(r.random, subjects...) {
				l, err := enter(s, c.path)
				if err == nil {
					err = r.sample(FlowSample{Path: c.path, Workload: c.workload, Subject: s, Round: round}, l)
				}
				if err != nil {
					return fmt.Errorf("%s %s of %s: %w", c.path, c.workload, s, err)
				}
			}
		}
	}
	return nil
}

// sample measures a lane and adds what it finds to the samples.
func (r *flowRun) sample(s FlowSample, l lane) error {
	count := func() (tallies, error) {
		if l.proof == nil {
			return nil, nil
		}
		return l.proof.count()
	}
	before, err := count()
	if err != nil {
		return err
	}
	m, err := r.measure(l, s.Workload, max(s.Connections, 1))
	if err != nil {
		return err
	}
	after, err := count()
	if err != nil {
		return err
	}
	s.take(m)
	if l.proof != nil {
		transactions := s.Units
		if !s.Workload.pingPong() {
			transactions = 0 // who knows how many packets it takes
		}
		s.Carried, s.Invalid = l.proof.judge(before, after, transactions)
	}
	r.samples = append(r.samples, s)
	return nil
}
