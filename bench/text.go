// SPDX-License-Identifier: Apache-2.0

// The report of [Attach] as text.

package bench

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// WriteText writes the report as tables for a reader.
func (r *Report) WriteText(w io.Writer) error {
	var out bytes.Buffer
	_, _ = fmt.Fprintf(&out, "%s\n\n", r.Machine)
	_, _ = fmt.Fprintf(&out, "ADD and DEL: one new process from fork to end, in ms; cpu is its own and its children's.\n"+
		"Ratios are medians of paired rounds [95 %% interval]; the control is zipline with %d endpoints.\n\n", ControlEndpoints)
	writeRows(&out, r.Rows)
	_, _ = fmt.Fprintln(&out)
	writeBursts(&out, r.Bursts)
	r.writeFacts(&out)
	writeTargets(&out, r.Targets)
	if _, err := out.WriteTo(w); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// newTable aligns cells to the right. A cell ends with a tab.
func newTable(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
}

func writeRows(w io.Writer, rows []Row) {
	table := newTable(w)
	_, _ = fmt.Fprint(table, "endpoints\tverb\trounds\tzipline p50\tp99\tcpu\tbridge p50\tp99\tcpu\tptp p50\tp99\tcpu\tzipline/bridge\tto control\t\n")
	for _, r := range rows {
		_, _ = fmt.Fprintf(table, "%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t\n", r.Endpoints, r.Verb, r.Times[Zipline].Count,
			r.Times[Zipline], r.Times[Bridge], r.Times[PTP], r.ToBridge, r.ToControl)
	}
	_ = table.Flush() // into memory
}

func writeBursts(w io.Writer, rows []Row) {
	table := newTable(w)
	_, _ = fmt.Fprint(table, "in parallel\t\trounds\tzipline s\tbridge s\tzipline/bridge\t\n")
	for _, r := range rows {
		_, _ = fmt.Fprintf(table, "%d\t%s\t%d\t%.3f\t%.3f\t%s\t\n", r.Endpoints, r.Verb, r.Times[Zipline].Count,
			r.Times[Zipline].P50, r.Times[Bridge].P50, r.ToBridge)
	}
	_ = table.Flush()
}

func (r *Report) writeFacts(w io.Writer) {
	f := r.Facts
	_, _ = fmt.Fprintln(w)
	for _, s := range []Subject{Zipline, Bridge, PTP} {
		_, _ = fmt.Fprintf(w, "%s: first ADD on a fresh node %.0f ms; one ADD starts %d processes (%d programs); "+
			"ADD and DEL executed %d forbidden programs", s, r.First[s]*1e3, f.Processes[s], f.Programs[s], len(f.Sprung[s]))
		if each, ok := f.KernelMemory[s]; ok {
			_, _ = fmt.Fprintf(w, "; the kernel's memory grew by %.0f kB per endpoint", each/1e3)
		}
		_, _ = fmt.Fprintln(w)
	}
	r.writeMaps(w)
	relation := ""
	if r.MaxRSS <= f.FloorRSS {
		relation = "at most " // the agent's own peak hides it
	}
	_, _ = fmt.Fprintf(w, "binary %.1f MB, peak memory of an ADD %s%.1f MB\n",
		float64(f.BinarySize)/1e6, relation, float64(r.MaxRSS)/1e6)
}

// writeMaps tells what all maps take together at the sizes of the run.
func (r *Report) writeMaps(w io.Writer) {
	var sizes []int
	sum := map[int]uint64{}
	for _, m := range r.Maps {
		if !slices.Contains(sizes, m.Endpoints) {
			sizes = append(sizes, m.Endpoints)
		}
		sum[m.Endpoints] += m.Bytes
	}
	if len(sizes) == 0 {
		return
	}
	_, _ = fmt.Fprint(w, "zipline's maps and programs take")
	for i, size := range sizes {
		comma := ","
		if i == 0 {
			comma = ""
		}
		_, _ = fmt.Fprintf(w, "%s %.2f MB with %d", comma, float64(sum[size])/1e6, size)
	}
	_, _ = fmt.Fprintln(w, " endpoints")
}

func writeTargets(w io.Writer, targets []Target) {
	_, _ = fmt.Fprintln(w, "\ntargets")
	width := 0
	for _, t := range targets {
		width = max(width, len(t.What))
	}
	for _, t := range targets {
		verdict := "met"
		if !t.Met {
			verdict = "MISSED"
		}
		_, _ = fmt.Fprintf(w, "  %-6s  %-*s  %s\n", verdict, width, t.What, t.Got)
	}
}

// String returns three cells of a table, in milliseconds.
func (t Times) String() string {
	if t.Count == 0 {
		return "-\t-\t-"
	}
	return fmt.Sprintf("%.2f\t%.2f\t%.2f", t.P50*1e3, t.P99*1e3, t.CPU*1e3)
}

// String returns the median with its interval, or "-" for no estimate.
func (e *Estimate) String() string {
	if e == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f [%.3f, %.3f]", e.Median, e.Low, e.High)
}
