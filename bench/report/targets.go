// SPDX-License-Identifier: Apache-2.0

// What the project has promised of its datapath.

package report

import (
	"fmt"
	"math"
	"slices"

	"github.com/zipline-cni/zipline/bench"
)

// The project's targets as ratios of rates.
const (
	minLocalToWire     = 0.97
	minDatagramsToWire = 0.9
	minCRRToWire       = 0.9
	minBigToWire       = 1.2
	minOutsideToWire   = 0.90
	minSlowToBridge    = 0.97
)

// grownTo is the size at which a new connection may not cost more than at first.
const grownTo = 1000

// State says how a target fared.
type State string

// The states.
const (
	Met    State = "met"
	Missed State = "missed"
	// Open is a target that the run can neither call met nor missed.
	Open        State = "not shown"
	NotMeasured State = "not measured"
)

// Target is a promise and what has become of it.
type Target struct {
	What  string
	State State
	// Got is what was measured, in words.
	Got string
}

// big returns the case of a forwarding with BIG TCP.
func big(forwarding bench.Subject) bench.Subject { return forwarding + " big" }

// judge compares a report with the targets.
func judge(r *Report) []Target {
	var targets []Target
	add := func(t Target) { targets = append(targets, t) }
	one := func(p bench.Path, w bench.Workload) Cell { return Cell{Path: p, Workload: w, Connections: 1} }
	for _, w := range []bench.Workload{bench.TCPRR, bench.TCPStream} {
		for _, s := range []bench.Subject{bench.Direct, bench.Tracked} {
			add(r.atLeast(one(bench.Local, w), s, bench.Wire, minLocalToWire))
			add(r.above(one(bench.Local, w), s, bench.Bridge))
		}
	}
	for _, w := range []bench.Workload{bench.UDP64, bench.UDP1400} {
		add(r.atLeast(one(bench.Local, w), bench.Direct, bench.Wire, minDatagramsToWire))
		add(r.above(one(bench.Local, w), bench.Direct, bench.Bridge))
	}
	add(r.atLeast(one(bench.Local, bench.TCPCRR), bench.Direct, bench.Wire, minCRRToWire))
	add(r.grown(bench.Direct))
	for _, s := range []bench.Subject{bench.Direct, bench.Tracked} {
		add(r.atLeast(one(bench.Local, bench.TCPStream), big(s), bench.Wire, minBigToWire))
	}
	for _, w := range []bench.Workload{bench.TCPRR, bench.TCPStream} {
		add(r.atLeast(one(bench.Outside, w), bench.Tracked, bench.Wire, minOutsideToWire))
	}
	for _, s := range []bench.Subject{bench.Direct, bench.Tracked} {
		add(r.everywhere(s, Rate, "no workload slower than bridge", r.notWorse))
	}
	for _, s := range []bench.Subject{bench.Tracked, bench.Kernel} {
		add(r.everywhere(s, Rate, fmt.Sprintf("every rate at least %.2f of bridge", minSlowToBridge), r.atLeastOf(minSlowToBridge)))
	}
	for _, s := range []bench.Subject{bench.Direct, bench.Tracked} {
		add(r.everywhere(s, CPU, "CPU per operation below bridge everywhere", func(ratio *Ratio) State { return shown(ratio, CPU) }))
	}
	return targets
}

func metIf(yes bool) State {
	if yes {
		return Met
	}
	return Missed
}

// shown asks for a verdict.
func shown(ratio *Ratio, m Measure) State {
	switch ratio.Verdict(m) {
	case Better:
		return Met
	case Worse:
		return Missed
	default:
		return Open
	}
}

// atLeastOf asks for a median. One of too few pairs shows neither, nor does one on
// a noisy machine whose interval has the limit in it.
func (r *Report) atLeastOf(least float64) func(*Ratio) State {
	return func(ratio *Ratio) State {
		unsure := len(r.Noise.Facts) > 0 && ratio.Low < least && ratio.High > least
		if ratio.Pairs < minPairs || unsure {
			return Open
		}
		return metIf(ratio.Median >= least)
	}
}

// notWorse asks that nothing worse is shown. Of too few pairs that says nothing, nor
// on a noisy machine of a median on the wrong side.
func (r *Report) notWorse(ratio *Ratio) State {
	switch verdict := ratio.Verdict(Rate); {
	case verdict == Worse:
		return Missed
	case ratio.Pairs < minPairs, len(r.Noise.Facts) > 0 && ratio.Median < 1 && verdict == NotShown:
		return Open
	default:
		return Met
	}
}

// atLeast asks for a median ratio of rates.
func (r *Report) atLeast(cell Cell, s, to bench.Subject, least float64) Target {
	return r.target(cell, s, to, fmt.Sprintf("at least %.2f of %s", least, to), r.atLeastOf(least))
}

// above asks for a ratio of rates that leaves 1 out.
func (r *Report) above(cell Cell, s, to bench.Subject) Target {
	return r.target(cell, s, to, fmt.Sprintf("above %s", to), func(ratio *Ratio) State { return shown(ratio, Rate) })
}

func (r *Report) target(cell Cell, s, to bench.Subject, limit string, judge func(*Ratio) State) Target {
	t := Target{What: fmt.Sprintf("%s, %s: %s", cell, s, limit), State: NotMeasured, Got: "-"}
	line := r.Line(cell, s)
	ratio := line.ratioTo(to, Rate)
	if ratio == nil {
		return t
	}
	t.State, t.Got = judge(ratio), ratio.String()
	if line.Invalid > 0 {
		t.Got += fmt.Sprintf(", %d of %d rounds invalid", line.Invalid, line.Rounds)
		if float64(line.Invalid) > bench.MaxInvalid*float64(line.Rounds) {
			t.State = Missed
		}
	}
	return t
}

// grown asks that connections are made as fast with many endpoints as with few.
func (r *Report) grown(s bench.Subject) Target {
	cell := Cell{Path: bench.Local, Workload: bench.TCPCRR, Connections: 1, Endpoints: grownTo}
	t := Target{What: fmt.Sprintf("%s, %s: no slower than with 1", cell, s), State: NotMeasured, Got: "-"}
	if line := r.growth(cell, s); line != nil && line.ToSelf[Rate] != nil {
		t.State, t.Got = r.notWorse(line.ToSelf[Rate]), line.ToSelf[Rate].String()
	}
	return t
}

// everywhere asks the same of all cells of a case, and shows the one that is worst
// off. In one of so many cells chance alone shows something, so an interval that
// makes the target missed has to be one of those that hold all at once.
func (r *Report) everywhere(s bench.Subject, m Measure, what string, judge func(*Ratio) State) Target {
	t := Target{What: fmt.Sprintf("%s: %s", s, what), State: NotMeasured, Got: "-"}
	lines := slices.DeleteFunc(slices.Clone(r.Lines), func(l Line) bool { return l.Case != s || l.ratioTo(bench.Bridge, m) == nil })
	met, worst, worstBy := 0, "", math.Inf(1)
	for _, line := range lines {
		ratio := line.ratioTo(bench.Bridge, m)
		state := judge(ratio)
		if state == Missed {
			wide := ratio.stretched(stretch(len(lines)))
			state = judge(&wide)
		}
		if state == Met {
			met++
		}
		// Of the cells that make the state what it is, the one furthest on the wrong side.
		by := math.Log(ratio.Median) * float64(m.better())
		if before := t.State; worse(before, state) == state && (state != before || by < worstBy) {
			t.State, worstBy, worst = state, by, fmt.Sprintf("%s %s", line.Cell, ratio)
		}
	}
	if len(lines) > 0 {
		t.Got = fmt.Sprintf("%d of %d; worst: %s", met, len(lines), worst)
	}
	return t
}

// worse returns the state that says less for a case.
func worse(a, b State) State {
	for _, s := range []State{Missed, Open, Met} {
		if a == s || b == s {
			return s
		}
	}
	return NotMeasured
}
