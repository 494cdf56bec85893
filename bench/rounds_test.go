// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// taken is a sample that a schedule has asked for.
type taken struct {
	entrant
	cell
	round int
}

// record runs a schedule that measures nothing and returns what it asked for.
func record(t *testing.T, ctx context.Context, seed uint64, s schedule, measure func(taken) error) ([]taken, int, error) {
	t.Helper()
	var all []taken
	s.measure = func(e entrant, c cell, round int) error {
		all = append(all, taken{e, c, round})
		if measure == nil {
			return nil
		}
		return measure(all[len(all)-1])
	}
	r := newSession(t, seed, nil)
	next, err := r.rounds(ctx, s)
	return all, next, err
}

// threeSubjects is two workloads on two paths, for three rounds.
func threeSubjects() schedule {
	return schedule{
		pace: exactly(3), cells: cells([]Path{Local, Outside}, []Workload{TCPRR, TCPStream}, 1),
		entrants: func(cell) []entrant { return entrants([]Subject{Wire, Bridge, Direct}) },
	}
}

func TestRoundsAreInterleaved(t *testing.T) {
	s := threeSubjects()
	all, next, err := record(t, t.Context(), 1, s, nil)
	if err != nil || next != 3 || len(all) != 3*4*3 {
		t.Fatalf("%d samples, next round %d, %v; want 36, 3", len(all), next, err)
	}
	orders := map[string]bool{}
	for group := range slices.Chunk(all, 3) {
		seen := map[taken]bool{}
		order := ""
		for _, sample := range group {
			// What is compared is of one cell and one round, and follows each other.
			if sample.cell != group[0].cell || sample.round != group[0].round || seen[sample] {
				t.Errorf("samples %v are no group of three", group)
			}
			seen[sample] = true
			order += fmt.Sprint(sample.subject, " ")
		}
		orders[order] = true
	}
	if len(orders) < 3 {
		t.Errorf("subjects are in the orders %v alone", orders)
	}
	for round := range 3 {
		cells := map[cell]int{}
		for _, sample := range all[round*12 : round*12+12] {
			if cells[sample.cell]++; sample.round != round {
				t.Errorf("round %d has %v", round, sample)
			}
		}
		if len(cells) != 4 {
			t.Errorf("round %d has the cells %v", round, cells)
		}
	}
	again, _, _ := record(t, t.Context(), 1, s, nil)
	other, _, _ := record(t, t.Context(), 2, s, nil)
	if !slices.Equal(all, again) || slices.Equal(all, other) {
		t.Error("the order is not that of the seed")
	}
}

func TestSomeCellsAreMeasuredInEveryOtherRoundOnly(t *testing.T) {
	s := threeSubjects()
	s.cells[0].every, s.first, s.pace = 2, 10, exactly(4)
	all, next, err := record(t, t.Context(), 1, s, nil)
	if err != nil || next != 14 {
		t.Errorf("next round %d, %v; want 14", next, err)
	}
	rounds := map[int]bool{}
	for _, sample := range all {
		if sample.cell == s.cells[0] {
			rounds[sample.round] = true
		}
	}
	if len(all) != 4*3*3+2*3 || len(rounds) != 2 || !rounds[10] || !rounds[12] {
		t.Errorf("%d samples, the cell in rounds %v", len(all), rounds)
	}
}

// Whatever is measured, some of it is in every round, and a full run has six pairs of
// each cell.
func TestEveryRunHasCellsInEachRound(t *testing.T) {
	for _, paths := range [][]Path{Paths, {HostPort}, {Service, HostPort}, {Outside}} {
		for _, connections := range [][]int{{1}, {32}, {1, 32}} {
			all := cells(paths, Workloads, connections...)
			setPace(all)
			often := 0
			for _, c := range all {
				if c.every == 1 {
					often++
				}
				if c.every < 1 || 25/c.every < 6 {
					t.Errorf("%v with %v connections: %s is measured every %d rounds", paths, connections, c, c.every)
				}
			}
			if often == 0 {
				t.Errorf("%v with %v connections: nothing is measured in each round", paths, connections)
			}
		}
	}
}

func TestRoundsEndWithinTheBudgetAtAWholeCell(t *testing.T) {
	s := threeSubjects()
	clock := &clock{time.Unix(0, 0)}
	s.pace = pace{least: 1, budget: 25 * time.Second, now: clock.now}
	all, next, err := record(t, t.Context(), 1, s, func(taken) error {
		clock.pass(time.Second)
		return nil
	})
	// A cell takes three seconds, so eight fit: two rounds.
	if err != nil || len(all) != 8*3 || next < 2 {
		t.Errorf("%d samples, next round %d, %v; want 24", len(all), next, err)
	}
}

func TestASampleThatFailsEndsTheRoundsUnlessSomebodyTakesIt(t *testing.T) {
	wrong := errors.New("no way")
	fail := func(s taken) error {
		if s.subject == Bridge {
			return wrong
		}
		return nil
	}
	_, _, err := record(t, t.Context(), 1, threeSubjects(), fail)
	if !errors.Is(err, wrong) {
		t.Errorf("a failure ends with %v", err)
	}
	s, out := threeSubjects(), map[Subject]bool{}
	s.entrants = func(cell) []entrant {
		return slices.DeleteFunc(entrants([]Subject{Wire, Bridge, Direct}), func(e entrant) bool { return out[e.subject] })
	}
	s.failed = func(e entrant, _ cell, err error) error {
		out[e.subject] = errors.Is(err, wrong)
		return nil
	}
	all, _, err := record(t, t.Context(), 1, s, fail)
	if err != nil || len(all) != 3*4*2+1 {
		t.Errorf("%d samples, %v; want those of two subjects and one that failed", len(all), err)
	}
}

func TestAnInterruptionIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	tired := errors.New("tired")
	s := threeSubjects()
	s.failed = func(e entrant, c cell, err error) error {
		t.Errorf("%s is blamed for an interruption: %v", e, err)
		return nil
	}
	all, _, err := record(t, ctx, 1, s, func(taken) error {
		// The process dies of the interruption before this one hears of it.
		time.AfterFunc(10*time.Millisecond, func() { cancel(tired) })
		return errors.New("broken pipe")
	})
	if !errors.Is(err, tired) || len(all) != 1 {
		t.Errorf("%d samples, %v", len(all), err)
	}
}
