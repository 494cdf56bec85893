// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"io"
)

// WriteText writes the report as tables for a reader.
func (r *FlowReport) WriteText(w io.Writer) error {
	var out bytes.Buffer
	_, _ = fmt.Fprintf(&out, "%s\n\n", r.Machine)
	_, _ = fmt.Fprintf(&out, "One connection for %v after %v; its ends on CPUs: %s. cpu is what all CPUs of the machine were busy,\n"+
		"per transaction or per MB, whoever was. Ratios are medians of paired rounds [95 %% interval].\n"+
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

// writeCell writes the table of one workload on one path.
func (r *FlowReport) writeCell(w io.Writer, path Path, workload Workload) {
	unit := "thousand/s\tcpu µs"
	if workload.bulk() {
		unit = "Gbit/s\tcpu µs/MB"
	}
	_, _ = fmt.Fprintf(w, "\n%s, %s\n", path, workload)
	table := newTable(w)
	_, _ = fmt.Fprintf(table, "\trounds\tby eBPF\t%s\t", unit)
	for _, reference := range r.References {
		_, _ = fmt.Fprintf(table, "rate to %s\tcpu to %s\t", reference, reference)
	}
	_, _ = fmt.Fprintln(table)
	for _, row := range r.Rows {
		if row.Path != path || row.Workload != workload {
			continue
		}
		_, _ = fmt.Fprintf(table, "%s\t%d\t%s\t%s\t", row.Subject, row.Rounds-row.Invalid, row.carried(), row.figures())
		for _, reference := range r.References {
			_, _ = fmt.Fprintf(table, "%s\t%s\t", row.RateTo[reference], row.CostTo[reference])
		}
		_, _ = fmt.Fprintln(table)
	}
	_ = table.Flush() // into memory
}

func (r *FlowRow) carried() string {
	if r.Carried == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", r.Carried*100)
}

// figures returns two cells: rate and cost.
func (r *FlowRow) figures() string {
	switch {
	case r.Rate == 0:
		return "-\t-"
	case r.Workload.bulk():
		return fmt.Sprintf("%.2f\t%.1f", r.Rate*8/1e9, r.Cost*1e12)
	default:
		return fmt.Sprintf("%.2f\t%.2f", r.Rate/1e3, r.Cost*1e6)
	}
}
