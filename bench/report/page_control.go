// SPDX-License-Identifier: Apache-2.0

// What the page says of the control plane: ADD, DEL and memory.

package report

import (
	"fmt"
	"slices"

	"github.com/zipline-cni/zipline/bench"
)

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
