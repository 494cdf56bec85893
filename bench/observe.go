// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// The subjects of a run of [Observe]: one node, by who looks at its packets.
const (
	Unobserved      Subject = "nobody"
	UnobservedAgain Subject = "nobody again"
	// TracedElsewhere is a trace that wants none of the packets measured.
	TracedElsewhere Subject = "trace another"
	// Counted is a trace that only counts, in the kernel.
	Counted Subject = "trace count"
	// Traced is a trace of all packets, within its limit of events a second.
	Traced Subject = "trace"
	// Captured has all packets of one end captured.
	Captured Subject = "capture"
)

// observers are the arguments of ziplinectl for each subject, and what it says
// when it has begun.
var observers = map[Subject]struct {
	args  []string
	ready string
}{
	TracedElsewhere: {[]string{"trace", "--port", "9", "-o", "json"}, "watching"},
	Counted:         {[]string{"trace", "--count", "-o", "json"}, "watching"},
	Traced:          {[]string{"trace", "-o", "json"}, "watching"},
	Captured:        {[]string{"capture", "a", "-w", os.DevNull}, "capturing"},
}

// ObserveOptions say what a run of [Observe] does.
type ObserveOptions struct {
	FlowOptions
	// Ziplinectl is the program that observes.
	Ziplinectl string
}

// DefaultObserveOptions are those of the documentation's figures.
func DefaultObserveOptions() ObserveOptions {
	return ObserveOptions{FlowOptions: FlowOptions{
		Rounds: 40, Duration: 400 * time.Millisecond, Warmup: 100 * time.Millisecond,
		Workloads: []Workload{TCPRR},
		Subjects:  []Subject{Unobserved, UnobservedAgain, TracedElsewhere, Counted, Traced, Captured},
		Placement: Together, Seed: 1,
	}}
}

// Observe measures what it costs the connections of containers that somebody
// traces or captures them, and returns its report. It needs root.
func Observe(ctx context.Context, opts ObserveOptions) (*FlowReport, error) {
	return runFlows(ctx, opts.FlowOptions, []Subject{Unobserved}, func(*FlowReport) []Target { return nil },
		func(r *flowRun) error { return r.measureObservers(opts.Ziplinectl) })
}

func (r *flowRun) measureObservers(program string) error {
	s, err := newTrackedSite(r.tb, r.opts)
	if err != nil {
		return err
	}
	o := &observer{program: program, node: s.world.Node}
	r.tb.Cleanup(func() { _ = o.stop() }) // the run is over
	return r.pairs([]Path{Local, Outside}, func(e entrant, c cell) (lane, error) { return s.lane(c), o.watch(e.subject) })
}

// observer is a ziplinectl that runs in a node.
type observer struct {
	program string
	node    *testrig.Node
	cmd     *exec.Cmd
}

// watch ends what runs and starts the subject's own.
func (o *observer) watch(s Subject) error {
	if err := o.stop(); err != nil {
		return err
	}
	want, ok := observers[s]
	if !ok {
		return nil
	}
	cmd := exec.Command(o.program, want.args...)
	said, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("observe: %w", err)
	}
	if err := o.node.Do(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(o.program), err)
	}
	o.cmd = cmd
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || !strings.Contains(line, want.ready) {
		return errors.Join(fmt.Errorf("%s has not begun, it says %q", strings.Join(cmd.Args, " "), line), err, o.stop())
	}
	return nil
}

func (o *observer) stop() error {
	if o.cmd == nil {
		return nil
	}
	cmd := o.cmd
	o.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("end %s: %w", filepath.Base(o.program), err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("end %s: %w", filepath.Base(o.program), err)
	}
	return nil
}
