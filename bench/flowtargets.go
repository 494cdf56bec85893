// SPDX-License-Identifier: Apache-2.0

package bench

import "fmt"

// The project's targets for connections, as shares of another one's rate.
const (
	minOutsideToWire = 0.90
	minLocalToWire   = 0.97
	minTaxed         = 0.98
)

// maxInvalid is the share of invalid rounds with which a target can still be met.
const maxInvalid = 0.1

// trafficTargets compares a report of [Traffic] with the targets.
func trafficTargets(r *FlowReport) []Target {
	workloads := []Workload{TCPRR, TCPStream}
	var targets []Target
	for _, w := range workloads {
		row := r.row(Outside, w, Tracked)
		targets = append(targets, row.target(Outside, w, Tracked, rateTo, Wire, atLeast(minOutsideToWire)),
			row.target(Outside, w, Tracked, rateTo, Bridge, above1))
	}
	for _, w := range workloads {
		for _, s := range []Subject{Direct, Tracked} {
			targets = append(targets, r.row(Local, w, s).target(Local, w, s, rateTo, Wire, atLeast(minLocalToWire)))
		}
	}
	for _, w := range workloads {
		targets = append(targets, r.row(Outside, w, Tracked).target(Outside, w, Tracked, costTo, Bridge, below1))
		for _, s := range []Subject{Direct, Tracked} {
			targets = append(targets, r.row(Local, w, s).target(Local, w, s, costTo, Bridge, below1))
		}
	}
	return targets
}

// taxTargets compares a report of [Tax] with the targets.
func taxTargets(r *FlowReport) []Target {
	var targets []Target
	for _, p := range []Path{Host, Forwarded} {
		targets = append(targets, r.row(p, TCPRR, WithPrograms).target(p, TCPRR, WithPrograms, rateTo, Without, atLeast(minTaxed)))
	}
	return targets
}

// ratio says which of a line's ratios a target is about.
type ratio struct {
	name string
	of   func(*FlowRow) map[Subject]*Estimate
}

var (
	rateTo = ratio{"rate", func(r *FlowRow) map[Subject]*Estimate { return r.RateTo }}
	costTo = ratio{"cpu", func(r *FlowRow) map[Subject]*Estimate { return r.CostTo }}
)

// limit is a condition on an estimate.
type limit struct {
	name string
	met  func(Estimate) bool
}

// The whole interval has to lie on one side of 1.
var (
	above1 = limit{"above 1", func(e Estimate) bool { return e.Low > 1 }}
	below1 = limit{"below 1", func(e Estimate) bool { return e.High < 1 }}
)

func atLeast(min float64) limit {
	return limit{fmt.Sprintf("at least %.2f", min), func(e Estimate) bool { return e.Median >= min }}
}

// target judges a line, which is nil if it was not measured: then the target is
// missed, as it is when too many rounds are invalid.
func (r *FlowRow) target(p Path, w Workload, s Subject, of ratio, to Subject, limit limit) Target {
	t := Target{What: fmt.Sprintf("%s %s, %s %s to %s %s", p, w, s, of.name, to, limit.name), Got: "not measured"}
	if r == nil {
		return t
	}
	if e := of.of(r)[to]; e != nil {
		t.Got, t.Met = e.String(), limit.met(*e)
	}
	if r.Invalid > 0 {
		t.Got += fmt.Sprintf(", %d of %d rounds invalid", r.Invalid, r.Rounds)
		t.Met = t.Met && float64(r.Invalid) <= maxInvalid*float64(r.Rounds)
	}
	return t
}
