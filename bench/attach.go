// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"io"
	"testing"

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
	// third of it.
	Rounds int
	// MainSize is the number of endpoints at which the plugins are compared.
	MainSize int
	// Sizes are the numbers of endpoints to measure at, in ascending order. The
	// bridge takes part up to BridgeMax.
	Sizes []int
	// BridgeMax is the greatest size at which the bridge takes part. A bridge
	// has 1,023 ports.
	BridgeMax int
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

// DefaultOptions are those of the project's targets.
func DefaultOptions() Options {
	return Options{
		Rounds: 45, MainSize: 200, Sizes: []int{1, 10, 100, 200, 500, 1000, 2000}, BridgeMax: 1000,
		Burst: 200, Width: 32, Bursts: 3, Seed: 1,
	}
}

// Attach measures ADD and DEL of the plugin under test beside the reference
// bridge, in private nodes that end with the run, and returns its report. It
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
}

func newRun(tb testing.TB, opts Options) *run {
	tb.Helper()
	return &run{
		session: newSession(tb, opts.Seed, opts.Progress), opts: opts,
		plugins: newPlugins(tb, opts.Zipline, opts.Plugins), worlds: map[Subject]*world{},
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
	for _, subject := range []Subject{Zipline, Bridge, Control} {
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
	if _, err := r.worlds[Control].mustResize(ControlEndpoints, populateWidth); err != nil {
		return err
	}
	for _, size := range r.opts.Sizes {
		subjects := []Subject{Zipline, Control}
		if size <= r.opts.BridgeMax {
			subjects = append(subjects, Bridge)
		}
		for _, subject := range subjects {
			if subject == Control {
				continue
			}
			r.progress(fmt.Sprintf("%s to %d endpoints", subject, size))
			if _, err := r.worlds[subject].mustResize(size, populateWidth); err != nil {
				return fmt.Errorf("%s at %d endpoints: %w", subject, size, err)
			}
		}
		r.progress(fmt.Sprintf("rounds at %d endpoints", size))
		rounds := max(r.opts.Rounds/3, 1)
		if size == r.opts.MainSize {
			rounds = r.opts.Rounds
		}
		for round := range rounds {
			if err := r.round(size, round, subjects); err != nil {
				return fmt.Errorf("round at %d endpoints: %w", size, err)
			}
		}
	}
	return nil
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
