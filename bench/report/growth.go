// SPDX-License-Identifier: Apache-2.0

// How the cost of connections changes with the endpoints on the network.

package report

import (
	"slices"

	"github.com/zipline-cni/zipline/bench"
)

// GrowthLine is a case in a cell of a network with a number of endpoints.
type GrowthLine struct {
	Cell
	Case    bench.Subject
	Medians map[Measure]float64
	// ToSelf are the ratios to the same case with the fewest endpoints; none there.
	ToSelf map[Measure]*Ratio
}

func (r *Report) newGrowthLine(cell Cell, subject bench.Subject) GrowthLine {
	l := GrowthLine{Cell: cell, Case: subject, Medians: map[Measure]float64{}, ToSelf: map[Measure]*Ratio{}}
	valid := r.samples.valid(cell, subject)
	first := r.smallest(cell, subject)
	for _, m := range measures {
		if value, ok := median(valid, m); ok {
			l.Medians[m] = value
		}
		if first == cell {
			continue
		}
		// Either end of the comparison may be off by the noise of its cell.
		noise := max(r.Noise.Of(cell, m), r.Noise.Of(first, m))
		if ratio := compare(valid, r.samples.valid(first, subject), m, noise, r.Results.Seed); ratio != nil {
			l.ToSelf[m] = ratio
		}
	}
	return l
}

// smallest returns the cell that is alike but for its endpoints and has the fewest
// of all in which the case was measured.
func (r *Report) smallest(cell Cell, subject bench.Subject) Cell {
	for _, c := range r.samples.cells { // ascending
		alike := c
		alike.Endpoints = cell.Endpoints
		if c.Endpoints > 0 && alike == cell && len(r.samples.all[place{c, subject}]) > 0 {
			return c
		}
	}
	return cell
}

// growth returns the line of a case on a path with a number of endpoints, or nil.
func (r *Report) growth(cell Cell, subject bench.Subject) *GrowthLine {
	i := slices.IndexFunc(r.Growth, func(l GrowthLine) bool { return l.Cell == cell && l.Case == subject })
	if i < 0 {
		return nil
	}
	return &r.Growth[i]
}
