// SPDX-License-Identifier: Apache-2.0

// Paired rounds: what is compared is measured one after the other, in random order.

package bench

import (
	"context"
	"fmt"
)

// cell is a part of a round: all that is compared with each other.
type cell struct {
	path        Path
	workload    Workload
	connections int
	// every how many rounds it is measured.
	every int
}

func (c cell) String() string {
	if c.connections == 1 {
		return fmt.Sprintf("%s %s", c.path, c.workload)
	}
	return fmt.Sprintf("%s %s with %d connections", c.path, c.workload, c.connections)
}

// cells returns the parts of a round.
func cells(paths []Path, workloads []Workload, connections ...int) []cell {
	var all []cell
	for _, p := range paths {
		for _, w := range workloads {
			for _, n := range connections {
				all = append(all, cell{p, w, n, 1})
			}
		}
	}
	return all
}

// entrant is who is measured in a cell.
type entrant struct {
	subject Subject
	// endpoints on its network; 0 where that is not varied.
	endpoints int
}

func (e entrant) String() string {
	if e.endpoints == 0 {
		return string(e.subject)
	}
	return fmt.Sprintf("%s at %d endpoints", e.subject, e.endpoints)
}

// entrants are subjects on networks that do not vary.
func entrants(subjects []Subject) []entrant {
	var all []entrant
	for _, s := range subjects {
		all = append(all, entrant{subject: s})
	}
	return all
}

// schedule is what [session.rounds] does.
type schedule struct {
	name  string
	pace  pace
	cells []cell
	// entrants of a cell, asked each time.
	entrants func(cell) []entrant
	// measure takes one sample.
	measure func(e entrant, c cell, round int) error
	// failed is told of an entrant whose way does not work; its error ends the
	// rounds. Optional: any failure ends them.
	failed func(entrant, cell, error) error
	// first is the number of the first round.
	first int
}

// rounds measures every entrant of every cell once in each round, all in random
// order. The entrants of one cell follow each other, because they are compared. It
// returns the number of the round behind the last one. When ctx ends it returns
// with the cause before the next sample.
func (r *session) rounds(ctx context.Context, s schedule) (int, error) {
	defer r.screen.clear()
	s.pace.start(meanCells(s.cells))
	for n := 0; len(s.cells) > 0 && (s.pace.most == 0 || n < s.pace.most); n++ {
		for _, c := range shuffled(r.random, s.cells...) {
			if n%c.every > 0 {
				continue
			}
			round := s.first + n
			if !s.pace.next() {
				return round + 1, nil
			}
			r.screen.progress(fmt.Sprintf("%s: round %d, %s", s.name, n+1, c), s.pace.left())
			for _, e := range shuffled(r.random, s.entrants(c)...) {
				if err := r.turn(ctx, s, e, c, round); err != nil {
					return round + 1, err
				}
			}
			s.pace.done++
		}
	}
	return s.first + s.pace.most, nil
}

// meanCells returns how many cells a round has on average.
func meanCells(cells []cell) float64 {
	sum := 0.0
	for _, c := range cells {
		sum += 1 / float64(c.every)
	}
	return sum
}

// turn measures an entrant.
func (r *session) turn(ctx context.Context, s schedule, e entrant, c cell, round int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := s.measure(e, c, round)
	switch {
	case err == nil:
		return nil
	case interrupted(ctx):
		return context.Cause(ctx)
	case s.failed == nil:
		return fmt.Errorf("%s of %s: %w", c, e, err)
	default:
		return s.failed(e, c, err)
	}
}

// pairs measures the subjects of the options, one connection at a time.
func (r *flowRun) pairs(paths []Path, enter func(entrant, cell) (lane, error)) error {
	_, err := r.rounds(r.tb.Context(), schedule{
		name: "connections", pace: exactly(r.opts.Rounds), cells: cells(paths, r.opts.Workloads, 1),
		entrants: func(cell) []entrant { return entrants(r.opts.Subjects) }, measure: r.through(enter),
	})
	return err
}

// through returns what measures the lanes that enter makes ready.
func (r *flowRun) through(enter func(entrant, cell) (lane, error)) func(entrant, cell, int) error {
	return func(e entrant, c cell, round int) error {
		l, err := enter(e, c)
		if err != nil {
			return err
		}
		return r.sample(FlowSample{
			Path: c.path, Workload: c.workload, Connections: c.connections,
			Subject: e.subject, Endpoints: e.endpoints, Round: round,
		}, l)
	}
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
	m, err := r.measure(l, s.Workload, s.Connections)
	if err != nil {
		return err
	}
	after, err := count()
	if err != nil {
		return err
	}
	s.take(m)
	if l.proof != nil {
		s.Carried, s.Invalid = l.proof.judge(before, after, s)
	}
	if s.Units == 0 {
		s.Invalid = "nothing has arrived"
	}
	r.samples = append(r.samples, s)
	return nil
}
