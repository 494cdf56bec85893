// SPDX-License-Identifier: Apache-2.0

// What the page says of connections: the summary, every cell, and networks that grow.

package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zipline-cni/zipline/bench"
)

// summary is what most readers want to know: one number for each path and workload.
func (p *page) summary() {
	cases := p.report.only(map[bench.Subject]bool{bench.Direct: true, bench.Tracked: true})
	if len(cases) == 0 {
		return
	}
	var names []string
	for _, s := range cases {
		names = append(names, string(s))
	}
	p.writef("\n## Summary\n\nOne connection, zipline %s. The intervals are in the pictures and [below](#connections).\n", strings.Join(names, " / "))
	for _, t := range []struct {
		what    string
		measure Measure
		to      bench.Subject
	}{{"rate to bridge", Rate, bench.Bridge}, {"rate to wire", Rate, bench.Wire}, {"CPU to bridge", CPU, bench.Bridge}} {
		p.summaryTable(t.what, cases, t.measure, t.to)
	}
	for i, path := range p.report.paths() {
		if i < onTop {
			p.picture("ratios-to-bridge-" + slug(string(path)))
		}
	}
	p.picture("growth")
	p.picture("attach")
}

// onTop is the number of paths whose pictures are on top of the page.
const onTop = 2

func (p *page) summaryTable(what string, cases []bench.Subject, m Measure, to bench.Subject) {
	head := []string{what}
	for _, path := range p.report.paths() {
		head = append(head, inTable(string(path)))
	}
	var workloads []bench.Workload
	for _, cell := range p.report.cells() {
		if !slices.Contains(workloads, cell.Workload) {
			workloads = append(workloads, cell.Workload)
		}
	}
	var rows [][]string
	for _, w := range workloads {
		row := []string{inTable(string(w))}
		for _, path := range p.report.paths() {
			var parts []string
			for _, s := range cases {
				parts = append(parts, brief(p.report.Line(Cell{Path: path, Workload: w, Connections: 1}, s).ratioTo(to, m), m))
			}
			row = append(row, strings.Join(parts, " / "))
		}
		rows = append(rows, row)
	}
	p.table(head, rows)
}

// brief returns a ratio without its interval, with what it shows.
func brief(ratio *Ratio, m Measure) string {
	if ratio == nil {
		return "-"
	}
	return strings.TrimSpace(fmt.Sprintf("%.2f %s", ratio.Median, mark(ratio, m)))
}

// marked returns a ratio with its interval and with what it shows.
func marked(ratio *Ratio, m Measure) string {
	if ratio == nil {
		return "-"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", ratio, mark(ratio, m)))
}

// mark is the sign of a verdict.
func mark(ratio *Ratio, m Measure) string {
	return map[Verdict]string{Better: "▲", Worse: "▼"}[ratio.Verdict(m)]
}

// connections are the tables of all cells, folded by path.
func (p *page) connections() {
	p.writef("\n## Connections\n\nCPU is that of the whole machine; the ends' is that of the two ends alone. Latency quantiles are medians over the rounds. " +
		"By eBPF is the smallest share of a round's packets.\n")
	for _, path := range p.report.paths() {
		p.writef("\n### %s\n", inTable(strings.ToUpper(string(path)[:1])+string(path)[1:]))
		if slices.Index(p.report.paths(), path) >= onTop {
			p.picture("ratios-to-bridge-" + slug(string(path)))
		}
		p.picture("ratios-to-wire-" + slug(string(path)))
		p.picture("rates-" + slug(string(path)))
		p.picture("latency-" + slug(string(path)))
		for _, cell := range p.report.cells() {
			if cell.Path == path {
				p.cell(cell)
			}
		}
	}
}

// cell is the table of one cell, folded.
func (p *page) cell(cell Cell) {
	lines := p.report.linesOf(cell)
	one, per := unit(cell.Workload)
	timed := slices.ContainsFunc(lines, func(l Line) bool { return l.P999 > 0 })
	head := []string{"", "rounds", "by eBPF", "rate", "to bridge", "to wire"}
	if timed {
		head = append(head, "p50", "p99", "p99.9", "p50 to bridge", "p99 to bridge")
	}
	if cell.Workload.Datagrams() {
		head = append(head, "lost")
	}
	head = append(head, "CPU per "+one, "to bridge", "to wire", "ends' to bridge")
	var rows [][]string
	for _, l := range lines {
		row := []string{inTable(string(l.Case)), fmt.Sprint(l.Rounds - l.Invalid), percent(l.Carried)}
		row = append(row, optional(l.Medians, Rate, func(v float64) string { return rateText(l.Workload, v) }),
			marked(l.ratioTo(bench.Bridge, Rate), Rate), marked(l.ratioTo(bench.Wire, Rate), Rate))
		if timed {
			row = append(row, optional(l.Medians, P50, secondsText), optional(l.Medians, P99, secondsText), secondsText(l.P999),
				marked(l.ratioTo(bench.Bridge, P50), P50), marked(l.ratioTo(bench.Bridge, P99), P99))
		}
		if cell.Workload.Datagrams() {
			row = append(row, percent(l.Lost))
		}
		rows = append(rows, append(row, optional(l.Medians, CPU, func(v float64) string { return secondsText(v * per) }),
			marked(l.ratioTo(bench.Bridge, CPU), CPU), marked(l.ratioTo(bench.Wire, CPU), CPU), marked(l.ratioTo(bench.Bridge, Own), Own)))
	}
	p.writef("\n<details><summary>%s</summary>\n", inTable(cell.String()))
	p.table(head, rows)
	for _, l := range lines {
		if l.Invalid > 0 {
			p.writef("\n%s: %d of %d rounds do not count, the first because of this: %s\n", inTable(string(l.Case)), l.Invalid, l.Rounds, inTable(l.Complaint))
		}
	}
	p.writef("\n</details>\n")
}

// optional returns a median in words, or "-".
func optional(medians map[Measure]float64, m Measure, text func(float64) string) string {
	if value, ok := medians[m]; ok {
		return text(value)
	}
	return "-"
}

func (p *page) growth() {
	if len(p.report.Growth) == 0 {
		return
	}
	p.writef("\n## Growth\n\nConnections between two containers while more and more endpoints are attached; ratios to the same case with the fewest.\n")
	var rows [][]string
	for _, l := range p.report.Growth {
		rows = append(rows, []string{
			string(l.Workload), inTable(string(l.Case)), fmt.Sprint(l.Endpoints),
			optional(l.Medians, Rate, func(v float64) string { return rateText(l.Workload, v) }), marked(l.ToSelf[Rate], Rate),
			optional(l.Medians, P50, secondsText), marked(l.ToSelf[P50], P50), marked(l.ToSelf[P99], P99), marked(l.ToSelf[CPU], CPU),
		})
	}
	slices.SortStableFunc(rows, func(a, b []string) int {
		order := p.report.samples.subjects
		at := func(row []string) int { return slices.Index(order, bench.Subject(row[1])) }
		if a[0] != b[0] {
			return inOrder(bench.Workloads, bench.Workload(a[0]), bench.Workload(b[0]))
		}
		return at(a) - at(b)
	})
	p.table([]string{"", "case", "endpoints", "rate", "rate to itself", "p50", "p50 to itself", "p99 to itself", "CPU to itself"}, rows)
}
