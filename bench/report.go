// SPDX-License-Identifier: Apache-2.0

// What the samples of [Attach] mean.

package bench

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Report is the outcome of a run: what was measured, and what it means.
type Report struct {
	Machine Machine `json:"machine"`
	// Rows are ordered by endpoints, ADD before DEL.
	Rows []Row `json:"rows"`
	// Bursts are the parallel phase, ADD before DEL.
	Bursts []Row `json:"bursts"`
	// First is the time of the first ADD on a fresh node in seconds.
	First map[Subject]float64 `json:"first"`
	// MaxRSS is the peak memory of an ADD of the plugin under test after the
	// first on a node, in bytes.
	MaxRSS  int64       `json:"maxRSS"`
	Facts   Facts       `json:"facts"`
	Maps    []MapMemory `json:"maps"`
	Targets []Target    `json:"targets"`
	Samples []Sample    `json:"samples"`
}

// Row is one verb at one number of endpoints.
type Row struct {
	Endpoints int    `json:"endpoints"`
	Verb      string `json:"verb"`
	// Times of each subject that took part.
	Times map[Subject]Times `json:"times"`
	// ToBridge is the ratio to the bridge. Nil where that took no part.
	ToBridge *Estimate `json:"toBridge,omitempty"`
	// ToControl is the ratio to the same plugin with [ControlEndpoints].
	ToControl *Estimate `json:"toControl,omitempty"`
}

// Times are quantiles in seconds.
type Times struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	// CPU is the median of the CPU time.
	CPU   float64 `json:"cpu"`
	Count int     `json:"count"`
}

// newReport computes a report from the samples of a run.
func newReport(opts Options, samples []Sample, facts Facts) *Report {
	r := &Report{Machine: thisMachine(), Facts: facts, Samples: samples, First: map[Subject]float64{}}
	for _, s := range samples {
		if s.Phase == PhaseFirst {
			r.First[s.Subject] = s.Seconds
		} else if s.Subject == Zipline && s.Verb == "ADD" {
			r.MaxRSS = max(r.MaxRSS, s.MaxRSS)
		}
	}
	r.Rows = newRows(samples, PhasePaired, opts.Seed)
	r.Bursts = newRows(samples, PhaseParallel, opts.Seed)
	r.Targets = judge(r, opts)
	return r
}

// newRows makes a row for every verb and number of endpoints of a phase.
func newRows(samples []Sample, phase Phase, seed uint64) []Row {
	var rows []Row
	for _, s := range samples {
		known := slices.ContainsFunc(rows, func(r Row) bool { return r.Endpoints == s.Endpoints && r.Verb == s.Verb })
		if s.Phase == phase && !known {
			rows = append(rows, newRow(samples, phase, s.Verb, s.Endpoints, seed))
		}
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Endpoints, b.Endpoints), strings.Compare(a.Verb, b.Verb))
	})
	return rows
}

func newRow(samples []Sample, phase Phase, verb string, endpoints int, seed uint64) Row {
	row := Row{Endpoints: endpoints, Verb: verb, Times: map[Subject]Times{}}
	of := func(s Subject) []Sample { return selectSamples(samples, phase, s, verb, endpoints) }
	for _, subject := range []Subject{Zipline, Bridge, PTP, Control} {
		if found := of(subject); len(found) > 0 {
			row.Times[subject] = newTimes(found)
		}
	}
	for _, other := range []struct {
		subject Subject
		ratio   **Estimate
	}{{Bridge, &row.ToBridge}, {Control, &row.ToControl}} {
		if r := ratios(of(Zipline), of(other.subject)); len(r) > 0 {
			e := EstimateMedian(r, seed)
			*other.ratio = &e
		}
	}
	return row
}

func newTimes(samples []Sample) Times {
	times := seconds(samples)
	cpu := make([]float64, 0, len(samples))
	for _, s := range samples {
		cpu = append(cpu, s.CPU)
	}
	return Times{P50: Median(times), P99: Quantile(times, 0.99), CPU: Median(cpu), Count: len(samples)}
}

// row returns the row of a verb at a number of endpoints, or nil.
func (r *Report) row(verb string, endpoints int) *Row {
	for i := range r.Rows {
		if r.Rows[i].Verb == verb && r.Rows[i].Endpoints == endpoints {
			return &r.Rows[i]
		}
	}
	return nil
}

// WriteJSON writes the whole report, samples among it.
func (r *Report) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

func writeJSON(w io.Writer, report any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(report); err != nil {
		return fmt.Errorf("write json: %w", err)
	}
	return nil
}

// WriteCSV writes the samples, one per line.
func (r *Report) WriteCSV(w io.Writer) error {
	lines := [][]string{{"phase", "subject", "verb", "endpoints", "round", "seconds", "cpu_seconds", "max_rss_bytes"}}
	for _, s := range r.Samples {
		lines = append(lines, []string{
			string(s.Phase), string(s.Subject), s.Verb, strconv.Itoa(s.Endpoints), strconv.Itoa(s.Round),
			strconv.FormatFloat(s.Seconds, 'f', 6, 64), strconv.FormatFloat(s.CPU, 'f', 6, 64),
			strconv.FormatInt(s.MaxRSS, 10),
		})
	}
	return writeCSV(w, lines)
}

func writeCSV(w io.Writer, lines [][]string) error {
	if err := csv.NewWriter(w).WriteAll(lines); err != nil {
		return fmt.Errorf("write csv: %w", err)
	}
	return nil
}
