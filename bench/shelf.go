// SPDX-License-Identifier: Apache-2.0

// Networks that are made at the same time and then kept.

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/zipline-cni/zipline/internal/tbrun"
)

// shelf keeps things that each have a TB of their own, so that one that can't be
// made fails alone.
type shelf struct {
	over    chan struct{}
	workers sync.WaitGroup
}

// newShelf returns a shelf whose things end with tb.
func newShelf(tb testing.TB) *shelf {
	s := &shelf{over: make(chan struct{})}
	tb.Cleanup(func() {
		close(s.over)
		s.workers.Wait()
	})
	return s
}

// make calls a function with a TB that lasts until the shelf ends, or until the
// function fails. It returns what made the function or the TB fail.
func (s *shelf) make(f func(testing.TB) error) error {
	result := make(chan error, 1)
	s.workers.Go(func() {
		err := tbrun.Run(context.Background(), io.Discard, func(tb testing.TB) {
			if err := f(tb); err != nil {
				tb.Fatal(err)
			}
			result <- nil
			<-s.over
		})
		result <- err
	})
	return <-result
}

// makeSites makes the networks of cases, as many at a time as there are CPUs for.
// Those that can't be made are left out. When ctx ends no more are begun.
func (r *caseRun) makeSites(ctx context.Context, cases []Case) (map[Subject]*site, error) {
	sites := map[Subject]*site{}
	var mu sync.Mutex
	var workers sync.WaitGroup
	places := make(chan struct{}, 2*runtime.NumCPU())
	for _, c := range cases {
		places <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		workers.Go(func() {
			defer func() { <-places }()
			var made *site
			err := r.shelf.make(func(tb testing.TB) (err error) {
				made, err = newSite(tb, c, r.dirs)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				sites[c.Name] = made
			case !interrupted(ctx):
				r.fail(c.Name, "build the network", err)
			}
		})
	}
	workers.Wait()
	if len(sites) == 0 {
		return nil, errors.Join(context.Cause(ctx), errors.New("no network could be built"))
	}
	r.progress(fmt.Sprintf("%d networks", len(sites)))
	return sites, nil
}
