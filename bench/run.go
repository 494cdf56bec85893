// SPDX-License-Identifier: Apache-2.0

// The whole comparison: every case on every path, the networks that grow, and the
// control plane.

package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/tbrun"
)

// RunOptions shape a [Run].
type RunOptions struct {
	// FlowOptions are those of all connections. Rounds is the greatest number of
	// rounds, 0 for as many as Budget has the time for; Subjects are names of
	// Cases, none for all of them.
	FlowOptions
	Cases []Case
	// Paths and Connections to measure, every workload with each of them.
	Paths       []Path
	Connections []int
	// Budget is the time for the rounds of connections; there are at least Least.
	Budget time.Duration
	Least  int
	// Settle is how long to wait at the most for the machine to be quiet.
	Settle time.Duration
	// Crosschecks is how often other tools measure the wire in turn with this one.
	Crosschecks int
	// Growth is the part about networks that grow; without sizes there is none.
	Growth Growth
	// Attach is the part about ADD and DEL. Its plugins, seed and progress are
	// those of the run. Optional.
	Attach *Options
}

// DefaultRunOptions are those of a full run: all cases, paths and workloads.
func DefaultRunOptions() (RunOptions, error) {
	cases, err := DefaultCases()
	attach := DefaultOptions()
	return RunOptions{
		FlowOptions: FlowOptions{
			Duration: 120 * time.Millisecond, Warmup: 40 * time.Millisecond,
			Workloads: Workloads, Placement: Together, Seed: 1,
		},
		Cases: cases, Paths: Paths, Connections: []int{1, 32},
		Budget: 15 * time.Minute, Least: 5, Settle: 3 * time.Minute, Crosschecks: 7,
		Growth: Growth{Sizes: []int{250, 1000}, Rounds: 12, Workloads: []Workload{TCPCRR, TCPRR}},
		Attach: &attach,
	}, err
}

// QuickRunOptions are those of a run that only shows that everything works, and
// roughly what is to be expected: less of everything.
func QuickRunOptions() (RunOptions, error) {
	opts, err := DefaultRunOptions()
	opts.Subjects = []Subject{Wire, WireAgain, Bridge, Direct, Tracked}
	opts.Workloads = []Workload{TCPRR, TCPCRR, TCPStream, UDP64}
	opts.Connections = []int{1}
	opts.Duration, opts.Warmup = 80*time.Millisecond, 30*time.Millisecond
	opts.Budget, opts.Least, opts.Settle, opts.Crosschecks = 20*time.Second, 2, 0, 1
	opts.Growth = Growth{Sizes: []int{10}, Rounds: 2, Workloads: []Workload{TCPCRR}}
	attach := QuickOptions()
	opts.Attach = &attach
	return opts, err
}

// every returns every how many rounds a cell is measured: the smaller the differences
// that it is asked about, the more often. A full run has the time for some 25
// rounds, and so for the six pairs of each cell that are the least to tell anything.
func every(c cell) int {
	switch {
	case c.connections > 1:
		return 4
	case c.path == HostPort || c.path == Service:
		return 3
	case c.workload == TCPRR || c.workload == TCPStream || c.path == Local && c.workload != TCPMaerts && c.workload != UDPRR:
		return 1
	default:
		return 2
	}
}

// setPace sets how often each cell is measured; some of them in every round.
func setPace(cells []cell) {
	often := 0
	for _, c := range cells {
		if n := every(c); often == 0 || n < often {
			often = n
		}
	}
	for i, c := range cells {
		cells[i].every = every(c) / often
	}
}

// Run measures the cases beside each other, in private nodes that end with the run.
// It needs root. A case that cannot be built or whose path does not work is left out
// from there on; the results say so, as they do if ctx ends before the run. They
// are nil only if nothing was measured.
func Run(ctx context.Context, opts RunOptions) (*Results, error) {
	var r *caseRun
	screen := newScreen(opts.Progress)
	settle(ctx, opts.Settle, time.Second, screen.progress, func() float64 { return loadAverage(readText("/proc/loadavg")) })
	err := tbrun.Run(context.WithoutCancel(ctx), screen, func(tb testing.TB) {
		var err error
		if r, err = newCaseRun(tb, opts); err == nil {
			err = r.measureAll(ctx)
		}
		if err != nil {
			tb.Fatal(err)
		}
	})
	if r == nil || len(r.samples) == 0 {
		return nil, errors.Join(err, context.Cause(ctx), errors.New("nothing was measured"))
	}
	r.results.Flows, r.results.Machine = r.samples, r.watch.Machine()
	return r.results, err
}

// caseRun is one [Run].
type caseRun struct {
	*flowRun
	opts    RunOptions
	dirs    []string // of plugins
	shelf   *shelf
	watch   *Watch
	results *Results
	sites   map[Subject]*site
}

func newCaseRun(tb testing.TB, opts RunOptions) (*caseRun, error) {
	watch := StartWatch(opts.Zipline) // before plugins are built
	cases, err := chosen(opts.Cases, opts.Subjects)
	if err == nil {
		err = errors.Join(someOf("workloads", opts.Workloads, Workloads), someOf("paths", opts.Paths, Paths))
	}
	// With one endpoint is what the others are compared with.
	if len(opts.Growth.Sizes) > 0 && opts.Growth.Sizes[0] < 2 {
		err = errors.Join(err, fmt.Errorf("a network that grows to %d does not grow", opts.Growth.Sizes[0]))
	}
	if err != nil {
		return nil, err
	}
	flows, err := newFlowRun(tb, opts.FlowOptions)
	if err != nil {
		return nil, err
	}
	return &caseRun{
		flowRun: flows, opts: opts, dirs: pluginDirs(tb, opts.Zipline, opts.Plugins), shelf: newShelf(tb),
		watch: watch,
		results: &Results{
			Version: ResultsVersion, Duration: opts.Duration, Warmup: opts.Warmup,
			Placement: opts.Placement, Seed: opts.Seed, Cases: cases,
		},
	}, nil
}

// chosen returns the cases of these names, in their own order.
func chosen(cases []Case, names []Subject) ([]Case, error) {
	for _, name := range names {
		if !slices.ContainsFunc(cases, func(c Case) bool { return c.Name == name }) {
			return nil, fmt.Errorf("no case %q", name)
		}
	}
	return slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return !within(names, c.Name) }), nil
}

// part is a part of a run.
type part struct {
	name   string
	f      func(context.Context) error
	wanted bool
}

// measureAll does all parts. An interruption is no error.
func (r *caseRun) measureAll(ctx context.Context) error {
	parts := slices.DeleteFunc([]part{
		{"build the networks", r.build, true},
		{"connections", r.measureFlows, true},
		{"other tools", r.measureCrosschecks, r.opts.Crosschecks > 0},
		{"control plane", r.measureAttach, r.opts.Attach != nil},
		// The last part, because the kernel is long at work on what it leaves.
		{"growth", r.measureGrowth, len(r.opts.Growth.Sizes) > 0},
	}, func(p part) bool { return !p.wanted })
	for i, p := range parts {
		r.progress(fmt.Sprintf("part %d of %d: %s", i+1, len(parts), p.name))
		err := p.f(ctx)
		if ctx.Err() != nil {
			r.results.Incomplete = fmt.Sprintf("%s: %v", p.name, context.Cause(ctx))
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// build makes the networks of all cases.
func (r *caseRun) build(ctx context.Context) error {
	var err error
	r.sites, err = r.makeSites(ctx, r.results.Cases)
	return err
}

// measureFlows measures the cases while there is time.
func (r *caseRun) measureFlows(ctx context.Context) error {
	all := slices.DeleteFunc(cells(r.opts.Paths, r.opts.Workloads, r.opts.Connections...), func(c cell) bool {
		return len(r.entrants(c)) == 0
	})
	setPace(all)
	_, err := r.rounds(ctx, schedule{
		name: "connections", cells: all,
		pace:     pace{least: r.opts.Least, most: r.opts.Rounds, budget: r.opts.Budget},
		entrants: r.entrants,
		measure:  r.twice(ctx, func(e entrant, c cell) (lane, error) { return r.sites[e.subject].lane(c), nil }),
		failed:   r.leaveOut,
	})
	return err
}

// measureCrosschecks has other tools measure the wire, if there is one.
func (r *caseRun) measureCrosschecks(ctx context.Context) (err error) {
	if wire := r.sites[Wire]; wire != nil {
		r.results.Crosschecks, err = r.crosscheck(ctx, wire.lanes[Local], r.opts.Crosschecks)
	}
	return err
}

// entrants returns the cases that take part in a cell and have not failed.
func (r *caseRun) entrants(in cell) []entrant {
	var all []entrant
	for _, c := range r.results.Cases {
		if s := r.sites[c.Name]; s != nil && c.takesPart(in) && s.has(in.path) {
			all = append(all, entrant{subject: c.Name})
		}
	}
	return all
}

// twice returns what measures the lanes that enter makes ready, and tries again what
// has failed, with new ends, for the old ones may still wait for each other. On a
// busy machine something is late now and then; what does not work fails again.
func (r *caseRun) twice(ctx context.Context, enter func(entrant, cell) (lane, error)) func(entrant, cell, int) error {
	measure := r.through(enter)
	return func(e entrant, c cell, round int) error {
		err := measure(e, c, round)
		if err == nil || interrupted(ctx) {
			return err
		}
		r.progress(fmt.Sprintf("once more: %s of %s: %v", c, e, err))
		if err := r.startEnds(); err != nil {
			return err
		}
		return measure(e, c, round)
	}
}

// leaveOut goes on without a case, with new ends.
func (r *caseRun) leaveOut(e entrant, in cell, why error) error {
	delete(r.sites, e.subject)
	r.fail(e.subject, in.String(), why)
	if len(r.sites) == 0 {
		return errors.New("every case has failed")
	}
	return r.startEnds()
}

// fail notes that a case has failed.
func (r *caseRun) fail(subject Subject, what string, why error) {
	r.results.Failures = append(r.results.Failures, Failure{subject, what, why.Error()})
	r.progress(fmt.Sprintf("left out: %s %s: %v", subject, what, why))
}
