// SPDX-License-Identifier: Apache-2.0

// What is computed from the samples of a run.

package report

import (
	"cmp"
	"slices"

	"github.com/zipline-cni/zipline/bench"
)

// references are what every case is compared with.
var references = []bench.Subject{bench.Bridge, bench.Wire}

// Report is what the results of a run mean.
type Report struct {
	Results *bench.Results
	Noise   *Noise
	// Lines are ordered by cell, then by case. They hold no growing networks.
	Lines []Line
	// Growth is ordered likewise.
	Growth []GrowthLine
	// Attach are the times of ADD and DEL, Bursts those of many in parallel.
	Attach, Bursts []AttachRow
	Crosschecks    []CrosscheckRow
	Targets        []Target
	samples        *index
}

// Line is a case in a cell.
type Line struct {
	Cell
	Case bench.Subject
	// Rounds is the number of samples, of which Invalid do not count; Complaint is
	// what the first of those says.
	Rounds, Invalid int
	Complaint       string
	// Medians over the rounds; one that was not measured is missing.
	Medians map[Measure]float64
	// P999 is the median over the rounds of their p99.9 latency in seconds, or 0.
	P999 float64
	// Lost is the share of all rounds' datagrams that did not arrive.
	Lost float64
	// Carried is the smallest share of a round's packets that eBPF carried.
	Carried float64
	// To are the ratios to the references.
	To map[bench.Subject]map[Measure]*Ratio
}

// New computes a report.
func New(results *bench.Results) *Report {
	r := &Report{Results: results, samples: newIndex(results)}
	r.Noise = newNoise(results, r.samples)
	for _, cell := range r.samples.cells {
		for _, subject := range r.samples.subjects {
			if len(r.samples.all[place{cell, subject}]) == 0 {
				continue
			}
			if cell.Endpoints == 0 {
				r.Lines = append(r.Lines, r.newLine(cell, subject))
			} else {
				r.Growth = append(r.Growth, r.newGrowthLine(cell, subject))
			}
		}
	}
	r.Attach = newAttachRows(results, bench.PhasePaired)
	r.Bursts = newAttachRows(results, bench.PhaseParallel)
	r.Crosschecks = newCrosscheckRows(results)
	r.Targets = judge(r)
	return r
}

func (r *Report) newLine(cell Cell, subject bench.Subject) Line {
	l := Line{Cell: cell, Case: subject, Medians: map[Measure]float64{}, To: map[bench.Subject]map[Measure]*Ratio{}}
	for _, s := range r.samples.all[place{cell, subject}] {
		l.Rounds++
		if s.Invalid != "" {
			l.Invalid++
			l.Complaint = cmp.Or(l.Complaint, s.Invalid)
		}
	}
	valid := r.samples.valid(cell, subject)
	l.fill(valid)
	for _, reference := range references {
		if reference == subject {
			continue
		}
		l.To[reference] = map[Measure]*Ratio{}
		others := r.samples.valid(cell, reference)
		for _, m := range measures {
			if ratio := compare(valid, others, m, r.Noise.Of(cell, m), r.Results.Seed); ratio != nil {
				l.To[reference][m] = ratio
			}
		}
	}
	return l
}

// fill computes what is compared with nothing from the samples that count.
func (l *Line) fill(valid []bench.FlowSample) {
	for _, m := range measures {
		if value, ok := median(valid, m); ok {
			l.Medians[m] = value
		}
	}
	var tails []float64
	var lost, all uint64
	for i, s := range valid {
		if s.Latency != nil {
			tails = append(tails, s.Latency.P999)
		}
		lost += s.Lost
		all += max(s.Sent, s.Units+s.Lost)
		if i == 0 || s.Carried < l.Carried {
			l.Carried = s.Carried
		}
	}
	if len(tails) > 0 {
		l.P999 = bench.Median(tails)
	}
	if l.Workload.Datagrams() && all > 0 {
		l.Lost = float64(lost) / float64(all)
	}
}

// Line returns the line of a case in a cell, or nil.
func (r *Report) Line(cell Cell, subject bench.Subject) *Line {
	i := slices.IndexFunc(r.Lines, func(l Line) bool { return l.Cell == cell && l.Case == subject })
	if i < 0 {
		return nil
	}
	return &r.Lines[i]
}

// cells returns the cells of the lines, in their order.
func (r *Report) cells() []Cell {
	return slices.DeleteFunc(slices.Clone(r.samples.cells), func(c Cell) bool { return c.Endpoints > 0 })
}

// mostRounds returns the number of rounds of the line that has most that count.
func (r *Report) mostRounds() int {
	most := 0
	for _, l := range r.Lines {
		most = max(most, l.Rounds-l.Invalid)
	}
	return most
}

// paths returns those of the lines, in their order.
func (r *Report) paths() []bench.Path {
	var paths []bench.Path
	for _, cell := range r.cells() {
		paths = append(paths, cell.Path)
	}
	return slices.Compact(paths)
}

// linesOf returns the lines of a cell.
func (r *Report) linesOf(cell Cell) []Line {
	return slices.DeleteFunc(slices.Clone(r.Lines), func(l Line) bool { return l.Cell != cell })
}

// ratioTo returns a ratio of the line, or nil; also of no line.
func (l *Line) ratioTo(reference bench.Subject, m Measure) *Ratio {
	if l == nil {
		return nil
	}
	return l.To[reference][m]
}
