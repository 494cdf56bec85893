// SPDX-License-Identifier: Apache-2.0

// The lower half of the page: growth, control plane, and what the figures rest on.

package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/zipline-cni/zipline/bench"
)

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

func (p *page) control() {
	r := p.report
	if len(r.Attach)+len(r.Bursts)+len(r.Results.Maps) == 0 {
		return
	}
	p.writef("\n## Control plane\n")
	subjects := r.attachSubjects()
	if len(r.Attach) > 0 {
		p.writef("\nOne ADD or DEL from fork to end, p50 / p99, with so many endpoints present; control is zipline with always %d.\n", bench.ControlEndpoints)
		p.attachTable("endpoints", subjects, r.Attach, func(t AttachTimes) string { return secondsText(t.P50) + " / " + secondsText(t.P99) })
	}
	if len(r.Bursts) > 0 {
		p.writef("\nMany in parallel, from the first one's start to the last one's end.\n")
		p.attachTable("in parallel", subjects, r.Bursts, func(t AttachTimes) string { return secondsText(t.P50) })
	}
	p.facts()
	p.maps()
}

func (p *page) attachTable(first string, subjects []bench.Subject, rows []AttachRow, times func(AttachTimes) string) {
	head := []string{"", first}
	for _, s := range subjects {
		head = append(head, inTable(string(s)))
		if s != bench.Bridge {
			head = append(head, "to bridge")
		}
	}
	var out [][]string
	for _, row := range rows {
		cells := []string{row.Verb, fmt.Sprint(row.Endpoints)}
		for _, s := range subjects {
			if t, ok := row.Times[s]; ok {
				cells = append(cells, times(t))
			} else {
				cells = append(cells, "-")
			}
			if s != bench.Bridge {
				cells = append(cells, marked(row.ToBridge[s], P50)) // of times: less is better
			}
		}
		out = append(out, cells)
	}
	p.table(head, out)
}

// facts are what needs no repetition.
func (p *page) facts() {
	f := p.report.Results.Facts
	var rows [][]string
	for _, s := range p.report.attachSubjects() {
		if f.Processes[s] > 0 {
			memory := "-"
			if each, ok := f.KernelMemory[s]; ok {
				memory = scaled(each, "B")
			}
			rows = append(rows, []string{
				inTable(string(s)), fmt.Sprint(f.Processes[s]), fmt.Sprint(f.Programs[s]), fmt.Sprint(len(f.Sprung[s])), memory,
			})
		}
	}
	p.table([]string{"one ADD of", "processes", "programs executed", "forbidden programs, DEL included", "memory of the kernel"}, rows)
}

// maps is the memory of maps by number of endpoints.
func (p *page) maps() {
	var sizes []int
	var names []string
	bytes := map[string]map[int]uint64{}
	const all = "all"
	for _, m := range p.report.Results.Maps {
		if !slices.Contains(sizes, m.Endpoints) {
			sizes = append(sizes, m.Endpoints)
		}
		if bytes[m.Name] == nil {
			names = append(names, m.Name)
			bytes[m.Name] = map[int]uint64{}
		}
		bytes[m.Name][m.Endpoints] += m.Bytes
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(sizes)
	slices.Sort(names)
	total := map[int]uint64{}
	head := []string{"memory of"}
	for _, size := range sizes {
		head = append(head, fmt.Sprintf("%d endpoints", size))
		for _, name := range names {
			total[size] += bytes[name][size]
		}
	}
	var rows [][]string
	row := func(name string, of map[int]uint64) {
		cells := []string{inTable(name)}
		for _, size := range sizes {
			cells = append(cells, scaled(float64(of[size]), "B"))
		}
		rows = append(rows, cells)
	}
	for _, name := range names {
		row(name, bytes[name])
	}
	row(all, total)
	p.table(head, rows)
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
			"the cells of the run usually have if that is more.\n")
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
