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

// Options shape a run of [Attach].
type Options struct {
	// Zipline is the path of the plugin under test.
	Zipline string
	// Plugins is the directory of the reference plugins; empty means to build
	// them from the Go module proxy, or to take those that were built before.
	Plugins string
	// Rounds is the number of paired rounds at MainSize; at the other sizes a
	// third of it, but not less than leastRounds.
	Rounds int
	// MainSize is the number of endpoints at which the plugins are compared.
	MainSize int
	// Sizes are the numbers of endpoints to measure at, in ascending order. The
	// reference plugins take part up to ReferenceMax.
	Sizes []int
	// ReferenceMax is the greatest size at which the bridge and ptp take part. A
	// bridge has 1,023 ports; ptp has no limit, but iptables takes longer and
	// longer to fill its node.
	ReferenceMax int
	// Patience is how long it may take to fill the node of a reference plugin up
	// to the next size. One that takes longer is left out from there on.
	Patience time.Duration
	// BridgeNetfilter sets net.bridge.bridge-nf-call-iptables in the nodes. With
	// it, as on a Kubernetes node, forwarding "auto" of the plugin under test is
	// tracked: netfilter sees all traffic. Without it is direct: eBPF carries
	// packets between containers, and every ADD attaches a program.
	BridgeNetfilter bool
	// Burst is how many ADDs the parallel phase starts, Width at a time.
	Burst, Width int
	// Bursts is the number of rounds of the parallel phase.
	Bursts int
	// Seed makes the order in a round and the intervals reproducible.
	Seed uint64
	// Progress gets one line per step. Optional.
	Progress io.Writer
}

// leastRounds make a median.
const leastRounds = 3

// rounds returns the number of paired rounds at a size.
func (o *Options) rounds(size int) int {
	if size == o.MainSize {
		return o.Rounds
	}
	return min(o.Rounds, max(o.Rounds/3, leastRounds))
}

// DefaultOptions are those of the project's targets.
func DefaultOptions() Options {
	return Options{
		Rounds: 30, MainSize: 200, Sizes: []int{1, 10, 100, 200, 500, 1000, 2000, 4000}, ReferenceMax: 1000, Patience: 90 * time.Second,
		Burst: 200, Width: 32, Bursts: 3, Seed: 1,
	}
}

// QuickOptions are those of a run that only shows that everything works, and
// roughly what is to be expected.
func QuickOptions() Options {
	return Options{
		Rounds: leastRounds, MainSize: 50, Sizes: []int{1, 50}, ReferenceMax: 50, Patience: 90 * time.Second,
		Burst: 20, Width: 8, Bursts: 1, Seed: 1,
	}
}

// Attach measures ADD and DEL of the plugin under test beside the reference
// plugins, in private nodes that end with the run, and returns its report. It
// needs root. The error of a plugin that fails ends the run.
func Attach(ctx context.Context, opts Options) (*Report, error) {
	if opts.Progress == nil {
		opts.Progress = io.Discard
	}
	var report *Report
	err := tbrun.Run(ctx, opts.Progress, func(tb testing.TB) {
		r := newRun(tb, opts)
		if err := r.measure(); err != nil {
			tb.Fatal(err)
		}
		report = newReport(r.opts, r.samples, r.facts)
		report.Maps = r.maps
	})
	return report, err
}

// run is one run of Attach.
type run struct {
	session
	opts    Options
	plugins map[Subject]Plugin
	worlds  map[Subject]*world
	samples []Sample
	facts   Facts
	maps    []MapMemory
	// slow says of the reference plugins that were left out why; see [Options].Patience.
	slow map[Subject]string
	// grown is by how much the kernel's memory grew while endpoints were added.
	grown map[Subject]kernelGrowth
}

func newRun(tb testing.TB, opts Options) *run {
	tb.Helper()
	return &run{
		session: newSession(tb, opts.Seed, opts.Progress), opts: opts,
		plugins: newPlugins(tb, opts.Zipline, opts.Plugins), worlds: map[Subject]*world{},
		slow: map[Subject]string{}, grown: map[Subject]kernelGrowth{},
	}
}

func (r *run) measure() error {
	for _, step := range []struct {
		name string
		f    func() error
	}{
		{"facts of one execution", r.measureFacts},
		{"first ADD on fresh nodes", r.measureFirst},
		{"parallel", r.measureParallel},
		{"sizes", r.measureSizes},
	} {
		r.progress(step.name)
		if err := step.f(); err != nil {
			return fmt.Errorf("measure %s: %w", step.name, err)
		}
	}
	return nil
}

// measureFirst makes the worlds and attaches the first container of each.
func (r *run) measureFirst() error {
	for _, subject := range []Subject{Zipline, Bridge, PTP, Control} {
		w := newWorld(r.tb, r.plugins[subject], r.opts.BridgeNetfilter)
		r.worlds[subject] = w
		rep, err := w.mustResize(1, 1)
		if err != nil {
			return err
		}
		r.record(Sample{Phase: PhaseFirst, Subject: subject, Verb: "ADD"}, rep.Executions[0])
	}
	return nil
}

// measureParallel attaches and detaches a burst of containers, each plugin in
// turn.
func (r *run) measureParallel() error {
	for round := range r.opts.Bursts {
		for _, verb := range []string{"ADD", "DEL"} {
			size := 1
			if verb == "ADD" {
				size += r.opts.Burst
			}
			for _, subject := range shuffled(r.random, Zipline, Bridge) {
				w := r.worlds[subject]
				// Making namespaces is none of the plugin's work.
				if err := w.makeContainers(size); err != nil {
					return err
				}
				rep, err := w.mustResize(size, r.opts.Width)
				if err != nil {
					return fmt.Errorf("%s: %w", subject, err)
				}
				r.samples = append(r.samples, Sample{
					Phase: PhaseParallel, Subject: subject, Verb: verb,
					Endpoints: r.opts.Burst, Round: round, Seconds: rep.Elapsed,
				})
			}
		}
	}
	return nil
}

// measureSizes brings the worlds to each size in turn and measures there.
func (r *run) measureSizes() error {
	if _, err := r.worlds[Control].mustResize(ControlEndpoints, growWidth); err != nil {
		return err
	}
	for _, size := range r.opts.Sizes {
		subjects := []Subject{Control}
		for _, subject := range []Subject{Zipline, Bridge, PTP} {
			arrived, err := r.grow(subject, size)
			if err != nil {
				return fmt.Errorf("%s to %d endpoints: %w", subject, size, err)
			}
			if arrived {
				subjects = append(subjects, subject)
			}
		}
		if err := r.measureMaps(size); err != nil {
			return err
		}
		rounds := r.begin(fmt.Sprintf("rounds at %d endpoints", size), r.opts.rounds(size))
		for round := range r.opts.rounds(size) {
			if err := r.round(size, round, subjects); err != nil {
				return fmt.Errorf("round at %d endpoints: %w", size, err)
			}
			rounds.advance(1)
		}
	}
	r.facts.KernelMemory = kernelMemoryPerEndpoint(r.grown)
	return nil
}

// growStep is how many endpoints are added between two looks at the progress.
const growStep = 100

// grow adds endpoints up to a size, and says whether there are so many now. The
// nodes grow one after the other, for the kernel's memory to tell whose growth it was.
func (r *run) grow(subject Subject, size int) (arrived bool, err error) {
	w := r.worlds[subject]
	if subject != Zipline && (size > r.opts.ReferenceMax || r.slow[subject] != "") {
		return false, nil
	}
	if w.present >= size {
		return true, nil
	}
	// Namespaces are none of the plugin's work.
	if err := w.makeContainers(size + 1); err != nil {
		return false, err
	}
	before, first, start := kernelMemory(), w.present, time.Now()
	added := r.begin(fmt.Sprintf("%s to %d endpoints", subject, size), size-first)
	defer func() { r.grown[subject] = r.grown[subject].add(w.present-first, kernelMemory()-before) }()
	for w.present < size {
		if subject != Zipline && time.Since(start) > r.opts.Patience {
			r.slow[subject] = fmt.Sprintf("%d endpoints after %s", w.present, r.opts.Patience)
			r.progress(fmt.Sprintf("left out: %s: %s", subject, r.slow[subject]))
			return false, nil
		}
		step := min(growStep, size-w.present)
		if _, err := w.mustResize(w.present+step, growWidth); err != nil {
			return false, err
		}
		added.advance(step)
	}
	return true, nil
}

// round measures one ADD and one DEL of every subject, in random order.
func (r *run) round(size, round int, subjects []Subject) error {
	for _, verb := range []string{"ADD", "DEL"} {
		for _, subject := range shuffled(r.random, subjects...) {
			w := r.worlds[subject]
			rep, err := w.run(1, job{verb, w.present})
			if err == nil {
				err = firstFailure(rep)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", subject, err)
			}
			r.record(Sample{
				Phase: PhasePaired, Subject: subject, Verb: verb, Endpoints: size, Round: round,
			}, rep.Executions[0])
			r.facts.FloorRSS = max(r.facts.FloorRSS, rep.FloorRSS)
		}
	}
	return nil
}

func (r *run) record(s Sample, e execution) {
	s.Seconds, s.CPU, s.MaxRSS = e.Seconds, e.CPU, e.MaxRSS
	r.samples = append(r.samples, s)
}
