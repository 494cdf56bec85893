// SPDX-License-Identifier: Apache-2.0

package bench

import "fmt"

// minTaxed is the project's target for the connections of everybody else, as the
// share of their rate without the programs.
const minTaxed = 0.98

// MaxInvalid is the share of invalid rounds with which a target can still be met.
const MaxInvalid = 0.1

// taxTargets compares a report of [Tax] with the targets.
func taxTargets(r *FlowReport) []Target {
	var targets []Target
	for _, p := range []Path{Host, Forwarded} {
		targets = append(targets, r.row(p, TCPRR, WithPrograms).target(p, TCPRR, WithPrograms, Without, minTaxed))
	}
	return targets
}

// target judges a line's rate, as a share of another one's. A line that is nil was
// not measured: then the target is missed, as it is when too many rounds are invalid.
func (r *FlowRow) target(p Path, w Workload, s, to Subject, least float64) Target {
	t := Target{What: fmt.Sprintf("%s %s, %s rate to %s at least %.2f", p, w, s, to, least), Got: "not measured"}
	if r == nil {
		return t
	}
	if e := r.RateTo[to]; e != nil {
		t.Got, t.Met = e.String(), e.Median >= least
	}
	if r.Invalid > 0 {
		t.Got += fmt.Sprintf(", %d of %d rounds invalid", r.Invalid, r.Rounds)
		t.Met = t.Met && float64(r.Invalid) <= MaxInvalid*float64(r.Rounds)
	}
	return t
}
