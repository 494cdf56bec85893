// SPDX-License-Identifier: Apache-2.0

// How the generator compares with other tools.

package report

import "github.com/zipline-cni/zipline/bench"

// CrosscheckRow is a figure of the generator beside another tool's.
type CrosscheckRow struct {
	What, Tool, Unit string
	// Note says why there is none.
	Note string
	// Ours and Theirs are medians.
	Ours, Theirs float64
	// Ratio of ours to theirs, round by round. Nil without pairs.
	Ratio *Ratio
}

func newCrosscheckRows(r *bench.Results) []CrosscheckRow {
	var rows []CrosscheckRow
	for _, c := range r.Crosschecks {
		row := CrosscheckRow{What: c.What, Tool: c.Tool, Unit: c.Unit, Note: c.Note}
		var ratios []float64
		for i := range min(len(c.Ours), len(c.Theirs)) {
			if c.Ours[i] > 0 && c.Theirs[i] > 0 {
				ratios = append(ratios, c.Ours[i]/c.Theirs[i])
			}
		}
		if len(ratios) > 0 {
			ratio := newRatio(bench.EstimateMedian(ratios, r.Seed), 0)
			row.Ours, row.Theirs, row.Ratio = bench.Median(c.Ours), bench.Median(c.Theirs), &ratio
		}
		rows = append(rows, row)
	}
	return rows
}
