// SPDX-License-Identifier: Apache-2.0

// When a run of rounds has had enough, and how long that will be.

package bench

import "time"

// pace says how many rounds there are: as many as the budget has the time for, but
// least in any case and never more than most. It counts in cells, so that the last
// round may be a part of one: what is compared is within a cell.
type pace struct {
	least, most int // rounds; most 0: no limit
	budget      time.Duration
	cells       float64 // of a round, on average
	now         func() time.Time

	began time.Time
	done  int // cells
}

// exactly returns the pace of so many rounds, however long they take.
func exactly(rounds int) pace { return pace{least: rounds, most: rounds} }

func (p *pace) start(cells float64) {
	p.cells = cells
	if p.now == nil {
		p.now = time.Now
	}
	p.began = p.now()
}

// next says whether there is another cell to measure.
func (p *pace) next() bool {
	return p.missing(p.least) > 0 || p.budget == 0 || p.elapsed()+p.mean() <= p.budget
}

// left returns the time until the end, as far as the cells until now can tell.
func (p *pace) left() time.Duration {
	until := func(rounds int) time.Duration { return time.Duration(p.missing(rounds) * float64(p.mean())) }
	left := max(p.budget-p.elapsed(), until(p.least))
	if p.most > 0 && p.done > 0 {
		left = min(left, until(p.most))
	}
	return left
}

// missing returns how many cells there are still until the end of a round.
func (p *pace) missing(round int) float64 { return max(float64(round)*p.cells-float64(p.done), 0) }

func (p *pace) elapsed() time.Duration { return p.now().Sub(p.began) }

// mean returns the time that a cell takes.
func (p *pace) mean() time.Duration {
	if p.done == 0 {
		return 0
	}
	return p.elapsed() / time.Duration(p.done)
}
