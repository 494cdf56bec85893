// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FlowReport is the outcome of [Tax] or [Observe].
type FlowReport struct {
	Machine Machine `json:"machine"`
	// Duration and Warmup of each measurement.
	Duration  time.Duration `json:"duration"`
	Warmup    time.Duration `json:"warmup"`
	Placement Placement     `json:"placement"`
	// References are what every other subject is compared with.
	References []Subject `json:"references"`
	// Rows are ordered by path and workload, then as subjects were measured.
	Rows    []FlowRow    `json:"rows"`
	Targets []Target     `json:"targets"`
	Samples []FlowSample `json:"samples"`
}

// FlowRow is a subject with one workload on one path.
type FlowRow struct {
	Path     Path     `json:"path"`
	Workload Workload `json:"workload"`
	Subject  Subject  `json:"subject"`
	// Rounds is the number of samples, of which Invalid do not count; Complaint
	// is what the first of those says.
	Rounds    int    `json:"rounds"`
	Invalid   int    `json:"invalid"`
	Complaint string `json:"complaint,omitempty"`
	Lost      uint64 `json:"lost,omitempty"`
	// Rate, Cost and Own are medians: units per second, and CPU seconds per unit
	// of the whole machine and of the two ends alone.
	Rate float64 `json:"rate"`
	Cost float64 `json:"cost"`
	Own  float64 `json:"own"`
	// Carried is the smallest share of packets that eBPF carried in a sample
	// that counts.
	Carried float64 `json:"carried"`
	// The ratios to the references.
	RateTo map[Subject]*Estimate `json:"rateTo,omitempty"`
	CostTo map[Subject]*Estimate `json:"costTo,omitempty"`
	OwnTo  map[Subject]*Estimate `json:"ownTo,omitempty"`
}

// newFlowReport computes a report from the samples of a run.
func newFlowReport(opts FlowOptions, references []Subject, samples []FlowSample, judge func(*FlowReport) []Target) *FlowReport {
	r := &FlowReport{
		Machine: thisMachine(), Duration: opts.Duration, Warmup: opts.Warmup, Placement: opts.Placement,
		References: references, Samples: samples,
	}
	var keys []flowKey
	for _, s := range samples {
		if !slices.Contains(keys, s.key()) {
			keys = append(keys, s.key())
		}
	}
	slices.SortFunc(keys, func(a, b flowKey) int {
		return cmp.Or(strings.Compare(string(b.path), string(a.path)),
			cmp.Compare(slices.Index(opts.Workloads, a.workload), slices.Index(opts.Workloads, b.workload)),
			cmp.Compare(slices.Index(opts.Subjects, a.subject), slices.Index(opts.Subjects, b.subject)))
	})
	for _, key := range keys {
		r.Rows = append(r.Rows, newFlowRow(samples, key, references, opts.Seed))
	}
	r.Targets = judge(r)
	return r
}

func newFlowRow(samples []FlowSample, key flowKey, references []Subject, seed uint64) FlowRow {
	counting := valid(samples, key)
	row := FlowRow{
		Path: key.path, Workload: key.workload, Subject: key.subject,
		RateTo: map[Subject]*Estimate{}, CostTo: map[Subject]*Estimate{}, OwnTo: map[Subject]*Estimate{},
	}
	for _, s := range samples {
		if s.key() != key {
			continue
		}
		row.Rounds++
		row.Lost += s.Lost
		if s.Invalid != "" {
			row.Invalid++
			row.Complaint = cmp.Or(row.Complaint, s.Invalid)
		}
	}
	if len(counting) == 0 {
		return row // medians of nothing are no numbers, which JSON can't say
	}
	row.Rate, row.Cost, row.Own = medianOf(counting, FlowSample.Rate), medianOf(counting, FlowSample.Cost), medianOf(counting, FlowSample.Own)
	row.Carried = slices.MinFunc(counting, func(a, b FlowSample) int { return cmp.Compare(a.Carried, b.Carried) }).Carried
	for _, reference := range references {
		if reference == key.subject {
			continue
		}
		others := valid(samples, flowKey{key.path, key.workload, reference})
		for _, c := range []struct {
			value func(FlowSample) float64
			to    map[Subject]*Estimate
		}{{FlowSample.Rate, row.RateTo}, {FlowSample.Cost, row.CostTo}, {FlowSample.Own, row.OwnTo}} {
			if ratios := PairedRatios(byRound(counting, c.value), byRound(others, c.value)); len(ratios) > 0 {
				e := EstimateMedian(ratios, seed)
				c.to[reference] = &e
			}
		}
	}
	return row
}

// row returns a line of the report, or nil.
func (r *FlowReport) row(path Path, workload Workload, subject Subject) *FlowRow {
	for i, row := range r.Rows {
		if row.Path == path && row.Workload == workload && row.Subject == subject {
			return &r.Rows[i]
		}
	}
	return nil
}

// Missed returns the targets that the run did not meet.
func (r *FlowReport) Missed() []Target { return missed(r.Targets) }

// WriteJSON writes the whole report, samples among it.
func (r *FlowReport) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

// WriteCSV writes the samples, one per line.
func (r *FlowReport) WriteCSV(w io.Writer) error {
	lines := [][]string{{"path", "workload", "subject", "round", "seconds", "units", "busy_seconds", "thread_seconds", "total_units", "lost", "carried", "invalid"}}
	for _, s := range r.Samples {
		lines = append(lines, []string{
			string(s.Path), string(s.Workload), string(s.Subject), strconv.Itoa(s.Round),
			strconv.FormatFloat(s.Seconds, 'f', 6, 64), strconv.FormatUint(s.Units, 10),
			strconv.FormatFloat(s.Busy, 'f', 6, 64), strconv.FormatFloat(s.Threads, 'f', 6, 64), strconv.FormatUint(s.Total, 10),
			strconv.FormatUint(s.Lost, 10),
			strconv.FormatFloat(s.Carried, 'f', 4, 64), s.Invalid,
		})
	}
	return writeCSV(w, lines)
}
