// SPDX-License-Identifier: Apache-2.0

// Finding samples by what they are about.

package report

import (
	"slices"

	"github.com/zipline-cni/zipline/bench"
)

// index finds the samples of connections.
type index struct {
	// cells in the order of a report, those of growing networks behind.
	cells []Cell
	all   map[place][]bench.FlowSample
	// subjects in the order of the cases.
	subjects []bench.Subject
}

// place is where samples belong.
type place struct {
	cell    Cell
	subject bench.Subject
}

func newIndex(r *bench.Results) *index {
	x := &index{all: map[place][]bench.FlowSample{}}
	for _, c := range r.Cases {
		x.subjects = append(x.subjects, c.Name)
	}
	known := map[Cell]bool{}
	for _, s := range r.Flows {
		cell := cellOf(s)
		if !known[cell] {
			known[cell] = true
			x.cells = append(x.cells, cell)
		}
		p := place{cell, s.Subject}
		x.all[p] = append(x.all[p], s)
	}
	slices.SortFunc(x.cells, compareCells)
	return x
}

// valid returns the samples that count.
func (x *index) valid(cell Cell, subject bench.Subject) []bench.FlowSample {
	var found []bench.FlowSample
	for _, s := range x.all[place{cell, subject}] {
		if s.Invalid == "" && s.Units > 0 && s.Seconds > 0 {
			found = append(found, s)
		}
	}
	return found
}
