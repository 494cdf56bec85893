// SPDX-License-Identifier: Apache-2.0

// Networks that grow: what a connection costs when many others have endpoints too.

package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Growth is the part of a run on networks that grow.
type Growth struct {
	// Sizes are numbers of endpoints beside the client, ascending from 2 on. Each is
	// compared with the same case's network with one.
	Sizes []int
	// Rounds at each size.
	Rounds int
	// Workloads to measure, between two containers of the node.
	Workloads []Workload
}

// grow adds containers with nothing to do to the network, until there are so many
// endpoints beside the client. When ctx ends it returns with the cause.
func (s *site) grow(ctx context.Context, endpoints int) error {
	var workers sync.WaitGroup
	var last atomic.Int64
	last.Store(int64(s.endpoints))
	errs := make([]error, growWidth)
	for i := range errs {
		// A helper of the rig that fails ends the goroutine.
		errs[i] = errors.New("make container: see above")
		workers.Go(func() { errs[i] = s.growBy(ctx, &last, endpoints) })
	}
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("grow to %d endpoints: %w", endpoints, err)
	}
	s.endpoints = max(s.endpoints, endpoints)
	return nil
}

func (s *site) growBy(ctx context.Context, last *atomic.Int64, endpoints int) error {
	for {
		i := last.Add(1)
		if i > int64(endpoints) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, _, err := s.add(fmt.Sprintf("c%d", i), nil); err != nil {
			return err
		}
	}
}

// measureGrowth measures the cases that take part in it on a small network and on
// one that grows, side by side.
func (r *caseRun) measureGrowth(ctx context.Context) error {
	var growing []Case
	for _, c := range r.results.Cases {
		if c.Growth && r.sites[c.Name] != nil {
			growing = append(growing, c)
		}
	}
	if len(growing) == 0 {
		return nil
	}
	large, err := r.makeSites(ctx, growing)
	if err != nil {
		return err
	}
	round := 0
	for _, size := range r.opts.Growth.Sizes {
		for _, c := range growing {
			r.progress(fmt.Sprintf("%s to %d endpoints", c.Name, size))
			if err := r.growOne(ctx, large, c.Name, size); err != nil {
				return err
			}
		}
		if round, err = r.compareSizes(ctx, large, size, round); err != nil {
			return err
		}
	}
	return nil
}

// growOne lets a network grow, or goes on without it.
func (r *caseRun) growOne(ctx context.Context, large map[Subject]*site, name Subject, size int) error {
	s := large[name]
	if s == nil {
		return nil
	}
	err := s.grow(ctx, size)
	if err != nil && interrupted(ctx) {
		return context.Cause(ctx)
	}
	if err != nil {
		delete(large, name)
		r.fail(name, "growth", err)
	}
	return nil
}

// compareSizes measures the networks that have grown beside those with one
// endpoint, and returns the number of the round behind the last one.
func (r *caseRun) compareSizes(ctx context.Context, large map[Subject]*site, size, first int) (int, error) {
	return r.rounds(ctx, schedule{
		name: fmt.Sprintf("growth to %d", size), first: first, pace: exactly(r.opts.Growth.Rounds),
		cells: cells([]Path{Local}, r.opts.Growth.Workloads, 1),
		entrants: func(cell) []entrant {
			var all []entrant
			for _, c := range r.results.Cases {
				if large[c.Name] != nil && r.sites[c.Name] != nil {
					all = append(all, entrant{c.Name, 1}, entrant{c.Name, size})
				}
			}
			return all
		},
		measure: r.twice(ctx, func(e entrant, c cell) (lane, error) {
			if e.endpoints == 1 {
				return r.sites[e.subject].lane(c), nil
			}
			return large[e.subject].lane(c), nil
		}),
		failed: r.leaveOut,
	})
}
