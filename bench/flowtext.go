// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"io"
	"slices"
)

// WriteText writes the report as tables for a reader.
func (r *FlowReport) WriteText(w io.Writer) error {
	var out bytes.Buffer
	_, _ = fmt.Fprintf(&out, "%s\n\n", r.Machine)
	_, _ = fmt.Fprintf(&out, "One connection for %v after %v; its ends on CPUs: %s. Ratios are medians of paired rounds [95 %% interval].\n"+
		"machine cpu is what all CPUs were busy, whoever was; own cpu is the two ends' alone; per transaction or per MB.\n"+
		"by eBPF is the smallest share of a round's packets; a round whose packets went another way than it is about is invalid.\n",
		r.Duration, r.Warmup, r.Placement)
	for i, row := range r.Rows {
		if i == 0 || row.Path != r.Rows[i-1].Path || row.Workload != r.Rows[i-1].Workload {
			r.writeCell(&out, row.Path, row.Workload)
		}
	}
	for _, row := range r.Rows {
		if row.Invalid > 0 {
			_, _ = fmt.Fprintf(&out, "\ninvalid: %s %s of %s, %d of %d rounds: %s", row.Path, row.Workload, row.Subject,
				row.Invalid, row.Rounds, row.Complaint)
		}
		if row.Lost > 0 {
			_, _ = fmt.Fprintf(&out, "\nlost: %s %s of %s, %d datagrams", row.Path, row.Workload, row.Subject, row.Lost)
		}
	}
	_, _ = fmt.Fprintln(&out)
	writeTargets(&out, r.Targets)
	if _, err := out.WriteTo(w); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// writeCell writes the tables of one workload on one path: rates, then costs.
func (r *FlowReport) writeCell(w io.Writer, path Path, workload Workload) {
	_, _ = fmt.Fprintf(w, "\n%s, %s\n", path, workload)
	rate, cost := "thousand/s", "cpu µs"
	if workload.Bulk() {
		rate, cost = "Gbit/s", "cpu µs/MB"
	}
	table := newTable(w)
	line := func(first string, cells func(reference Subject) string) {
		_, _ = fmt.Fprint(table, first)
		for _, reference := range r.References {
			_, _ = fmt.Fprint(table, cells(reference))
		}
		_, _ = fmt.Fprintln(table)
	}
	rows := slices.DeleteFunc(slices.Clone(r.Rows), func(row FlowRow) bool { return row.Path != path || row.Workload != workload })
	line("\trounds\tby eBPF\t"+rate+"\t", func(s Subject) string { return fmt.Sprintf("to %s\t", s) })
	for _, row := range rows {
		line(fmt.Sprintf("%s\t%d\t%s\t%s\t", row.Subject, row.Rounds-row.Invalid, row.carried(), row.rate()),
			func(s Subject) string { return fmt.Sprintf("%s\t", row.RateTo[s]) })
	}
	_ = table.Flush() // into memory
	line("\tmachine "+cost+"\town "+cost+"\t", func(s Subject) string { return fmt.Sprintf("machine to %s\town to %s\t", s, s) })
	for _, row := range rows {
		line(fmt.Sprintf("%s\t%s\t%s\t", row.Subject, row.cost(row.Cost), row.cost(row.Own)),
			func(s Subject) string { return fmt.Sprintf("%s\t%s\t", row.CostTo[s], row.OwnTo[s]) })
	}
	_ = table.Flush()
}

func (r *FlowRow) carried() string {
	if r.Carried == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", r.Carried*100)
}

func (r *FlowRow) rate() string {
	switch {
	case r.Rate == 0:
		return "-"
	case r.Workload.Bulk():
		return fmt.Sprintf("%.2f", r.Rate*8/1e9)
	default:
		return fmt.Sprintf("%.2f", r.Rate/1e3)
	}
}

func (r *FlowRow) cost(seconds float64) string {
	switch {
	case r.Rate == 0:
		return "-"
	case r.Workload.Bulk():
		return fmt.Sprintf("%.1f", seconds*1e12)
	default:
		return fmt.Sprintf("%.2f", seconds*1e6)
	}
}
