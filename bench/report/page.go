// SPDX-License-Identifier: Apache-2.0

// The page that a run is read on: its order, what was run where, and what that rests on.

package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
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
		p.writef("> **%s**", inTable(noise))
		if p.report.Noise.Measured {
			p.writef(" Intervals are wider than on a quiet machine, by at least what two equal wires differed by in nine of ten\n" +
				"> cells, so less is shown. See [noise](#noise).")
		}
		p.writef("\n\n")
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

// trust is what the figures rest on: the generator and the noise.
func (p *page) trust() {
	if len(p.report.Crosschecks) > 0 {
		p.writef("\n## Crosscheck\n\nThe same figure by another tool on the same path, in turn.\n")
		var rows [][]string
		for _, c := range p.report.Crosschecks {
			row := []string{inTable(c.What), inTable(c.Tool), "-", "-", inTable(cmp.Or(c.Note, "-"))}
			if c.Ratio != nil {
				unit := strings.NewReplacer("bytes/s", "B/s", "transactions/s", "/s").Replace(inTable(c.Unit))
				row = []string{row[0], row[1], scaled(c.Ours, unit), scaled(c.Theirs, unit), c.Ratio.String()}
			}
			rows = append(rows, row)
		}
		p.table([]string{"", "tool", "zipline-bench", "tool's", "ratio"}, rows)
	}
	p.writef("\n## Noise\n")
	if !p.report.Noise.Measured {
		p.writef("\nThere was no second wire: what this run cannot tell from nothing is unknown, and no interval is widened.\n")
	} else {
		p.writef("\nEach interval of a cell is widened on both sides by this, what two equal wires differed by there, or by what " +
			"cells of its workload usually have if that is more.\n")
		var rows [][]string
		for _, cell := range p.report.cells() {
			row := []string{inTable(cell.String())}
			for _, m := range measures {
				row = append(row, percent(math.Expm1(p.report.Noise.Of(cell, m))))
			}
			rows = append(rows, row)
		}
		head := []string{""}
		for _, m := range measures {
			head = append(head, string(m))
		}
		p.writef("\n<details><summary>by cell</summary>\n")
		p.table(head, rows)
		p.writef("\n</details>\n")
	}
}

// repeat says what was compared, and how to do it again.
func (p *page) repeat() {
	r := p.report.Results
	p.writef("\n## Cases\n")
	var rows [][]string
	for _, c := range r.Cases {
		rows = append(rows, []string{inTable(string(c.Name)), inTable(c.Title)})
	}
	p.list([]string{"case", "what it is"}, rows)
	for _, f := range r.Failures {
		p.writef("\nLeft out: %s: %s\n", inTable(strings.TrimSpace(fmt.Sprintf("%s %s", f.Subject, f.What))), inTable(f.Why))
	}
	p.writef("\n## To repeat\n\n`%s`, seed %d: each measurement takes %v after %v, its ends on CPUs: %s. Every sample is in results.json, the "+
		"networks of the cases too; docs/benchmark.md explains each figure.\n",
		inTable(strings.Join(r.Machine.Command, " ")), r.Seed, r.Duration, r.Warmup, inTable(string(r.Placement)))
	if len(r.Machine.Mitigations) > 0 {
		p.writef("\nThe kernel says of the CPU's flaws: %s.\n", inTable(strings.Join(r.Machine.Mitigations, "; ")))
	}
}
