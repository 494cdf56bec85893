// SPDX-License-Identifier: Apache-2.0

// The control plane as a part of a run.

package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/tbrun"
)

// measureAttach measures ADD and DEL as [Attach] does. A failure is noted, and the
// run goes on.
func (r *caseRun) measureAttach(ctx context.Context) error {
	opts := *r.opts.Attach
	opts.Zipline, opts.Plugins, opts.Seed, opts.Progress = r.opts.Zipline, r.opts.Plugins, r.opts.Seed, r.opts.Progress
	var attach *run
	done := make(chan struct{})
	err := tbrun.Run(ctx, r.screen, func(tb testing.TB) {
		defer close(done)
		attach = newRun(tb, opts)
		attach.screen = r.screen
		if err := attach.measure(); err != nil {
			tb.Fatal(err)
		}
	})
	select {
	case <-done:
		if attach != nil {
			r.results.Attach, r.results.Facts, r.results.Maps = attach.samples, attach.facts, attach.maps
			for subject, why := range attach.slow {
				what := fmt.Sprintf("ADD and DEL with up to %d endpoints", opts.ReferenceMax)
				r.results.Failures = append(r.results.Failures, Failure{subject, what, why})
			}
		}
	case <-time.After(agentPatience):
		// Interrupted, and at work still: it ends with the process.
	}
	if err != nil && ctx.Err() == nil {
		r.fail("", "control plane", err)
	}
	return nil
}
