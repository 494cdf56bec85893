// SPDX-License-Identifier: Apache-2.0

// The page that a run is read on.

package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/zipline-cni/zipline/bench"
)

// page is a Markdown page in the making.
type page struct {
	bytes.Buffer
	report *Report
	// figures that there are beside the page.
	figures []figure
}

// writef adds text.
func (p *page) writef(format string, args ...any) { _, _ = fmt.Fprintf(p, format, args...) }

// table adds a table of numbers: all columns but the first are aligned to the right.
func (p *page) table(head []string, rows [][]string) { p.aligned("---:|", head, rows) }

// list adds a table of words.
func (p *page) list(head []string, rows [][]string) { p.aligned("---|", head, rows) }

func (p *page) aligned(alignment string, head []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	p.writef("\n| %s |\n|---|%s\n", strings.Join(head, " | "), strings.Repeat(alignment, len(head)-1))
	for _, row := range rows {
		p.writef("| %s |\n", strings.Join(row, " | "))
	}
}

// picture adds a figure by its name, if there is one.
func (p *page) picture(name string) {
	if i := slices.IndexFunc(p.figures, func(f figure) bool { return f.name == name }); i >= 0 {
		p.writef("\n![%s](%s.svg)\n", p.figures[i].title, name)
	}
}

// writeMarkdown writes the page, which shows the figures beside it.
func (r *Report) writeMarkdown(w io.Writer, figures []figure) error {
	p := &page{report: r, figures: figures}
	p.head()
	p.summary()
	p.targets()
	p.connections()
	p.growth()
	p.control()
	p.trust()
	p.repeat()
	if _, err := p.WriteTo(w); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// head says what was run where, and how far to trust it.
func (p *page) head() {
	m := p.report.Results.Machine
	p.writef("# What a container network costs on this machine\n\n")
	if noise := p.report.Noise.String(); noise != "" {
		p.writef("> **%s** Intervals are wider than on a quiet machine, by at least what two equal wires differed by in nine of ten\n"+
			"> cells, so less is shown. See [noise](#noise).\n\n", inTable(noise))
	}
	if rounds := p.report.mostRounds(); rounds < minPairs {
		p.writef("> **The run shows nothing:** its cells have at most %d rounds, where a verdict takes %d.\n\n", rounds, minPairs)
	}
	if why := p.report.Results.Incomplete; why != "" {
		p.writef("> **The run is incomplete:** %s.\n\n", inTable(why))
	}
	kind := "CPUs"
	if m.Virtual {
		kind = "CPUs of a virtual machine"
	}
	p.writef("- %s, Linux %s, %d %s (%s), governor %s, turbo %s, load %.2f before and %.2f after, %.1f %% of the CPU time stolen.\n",
		m.Time.UTC().Format(time.DateOnly), inTable(m.Kernel), m.CPUs, kind, inTable(cmp.Or(m.Model, "unknown model")),
		inTable(cmp.Or(m.Governor, "not shown")), inTable(cmp.Or(m.Turbo, "not shown")), m.LoadBefore, m.LoadAfter, m.Steal*100)
	p.writef("- %s, reference plugins %s, %s, %s.\n", inTable(cmp.Or(m.Zipline, "zipline of unknown version")), inTable(m.Reference),
		inTable(m.IPTables), inTable(m.Go))
	p.writef("- Ratios are medians of paired rounds with 95 %% intervals, widened by noise. ▲ better, ▼ worse; without a mark no difference is shown.\n")
}

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

func (p *page) targets() {
	p.writef("\n## Targets\n")
	var rows [][]string
	for _, t := range p.report.Targets {
		state := string(t.State)
		if t.State == Missed {
			state = "**missed**"
		}
		rows = append(rows, []string{inTable(t.What), state, t.Got})
	}
	p.list([]string{"target", "state", "measured"}, rows)
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
	if datagrams(cell.Workload) {
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
		if datagrams(cell.Workload) {
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
