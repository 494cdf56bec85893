// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"testing"
	"time"
)

// clock is a time that a test moves.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func (c *clock) pass(d time.Duration) { c.Time = c.Add(d) }

func TestPaceEndsWithTheBudget(t *testing.T) {
	for _, c := range []struct {
		name  string
		pace  pace
		cells float64
		each  time.Duration
		want  int // cells
	}{
		{"as many as there is time for", pace{least: 1, budget: 60 * time.Second}, 4, 5 * time.Second, 12},
		{"none that would end too late", pace{least: 1, budget: 58 * time.Second}, 4, 5 * time.Second, 11},
		{"at least the least rounds", pace{least: 3, budget: time.Second}, 4, 5 * time.Second, 12},
		{"part of a round", pace{least: 1, budget: 30 * time.Second}, 4, 5 * time.Second, 6},
		{"half a cell in each round", pace{least: 2, budget: time.Second}, 1.5, time.Second, 3},
		{"without a budget until somebody else ends it", pace{}, 4, time.Second, 1000},
	} {
		clock := &clock{time.Unix(0, 0)}
		c.pace.now = clock.now
		c.pace.start(c.cells)
		for c.pace.done < 1000 && c.pace.next() {
			clock.pass(c.each)
			c.pace.done++
		}
		if c.pace.done != c.want {
			t.Errorf("%s: %d cells; want %d", c.name, c.pace.done, c.want)
		}
	}
}

func TestPaceSaysHowLongItTakes(t *testing.T) {
	for _, c := range []struct {
		name string
		pace pace
		want time.Duration
	}{
		{"the rest of the budget", pace{least: 1, budget: time.Minute}, 50 * time.Second},
		{"the least rounds, which take longer", pace{least: 10, budget: time.Minute}, 190 * time.Second},
		{"all rounds, which take less", pace{least: 1, most: 2, budget: time.Minute}, 30 * time.Second},
		{"exactly so many", exactly(3), 50 * time.Second},
	} {
		clock := &clock{time.Unix(0, 0)}
		c.pace.now = clock.now
		c.pace.start(4)
		if left := c.pace.left(); left != c.pace.budget {
			t.Errorf("%s: %v left at first; want %v", c.name, left, c.pace.budget)
		}
		for range 2 {
			clock.pass(5 * time.Second)
			c.pace.done++
		}
		if left := c.pace.left(); left != c.want {
			t.Errorf("%s: %v left; want %v", c.name, left, c.want)
		}
	}
}
