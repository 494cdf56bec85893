// SPDX-License-Identifier: Apache-2.0

package coverage

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Count is how many of all things of a kind ran.
type Count struct{ Covered, Total int }

// String returns the share in words.
func (c Count) String() string {
	if c.Total == 0 {
		return "none"
	}
	return fmt.Sprintf("%d/%d (%.1f %%)", c.Covered, c.Total, 100*float64(c.Covered)/float64(c.Total))
}

func (c *Count) add(covered bool) {
	c.Total++
	if covered {
		c.Covered++
	}
}

// Report is what ran of the lines of one or more programs.
type Report struct {
	// Lines has the share of the lines of each file.
	Lines map[string]Count
	// Conditions has the share of the lines with a condition that went both
	// ways.
	Conditions map[string]Count
	// Blocks and Ways are of the machine code, by program: each inlined copy of
	// a line counts. Ways are those out of conditional jumps.
	Blocks, Ways map[string]Count
	// Missed are the lines that never ran, Halves those with a condition that
	// always went the same way.
	Missed, Halves []Line
}

// NewReport reads the value of the map. Programs that keep refuses are left out.
func NewReport(probes []Probe, value []byte, keep func(program string) bool) *Report {
	r := &Report{Lines: map[string]Count{}, Conditions: map[string]Count{}, Blocks: map[string]Count{}, Ways: map[string]Count{}}
	ran := map[Line]bool{}
	type ways struct{ taken, passed bool }
	conditions := map[Line]ways{}
	for i, p := range probes {
		if !keep(p.Program) {
			continue
		}
		hit := value[i] != 0
		for _, line := range p.Lines {
			way := conditions[line]
			switch {
			case p.Jump == 0:
				ran[line] = ran[line] || hit
				continue
			case p.Jump > 0:
				way.taken = way.taken || hit
			default:
				way.passed = way.passed || hit
			}
			conditions[line] = way
		}
		if p.Jump == 0 {
			count(r.Blocks, p.Program, hit)
		} else {
			count(r.Ways, p.Program, hit)
		}
	}
	for line, hit := range ran {
		count(r.Lines, line.File, hit)
		if !hit {
			r.Missed = append(r.Missed, line)
		}
	}
	for line, way := range conditions {
		count(r.Conditions, line.File, way.taken && way.passed)
		if way.taken != way.passed {
			r.Halves = append(r.Halves, line)
		}
	}
	slices.SortFunc(r.Missed, compareLines)
	slices.SortFunc(r.Halves, compareLines)
	return r
}

func count(counts map[string]Count, name string, hit bool) {
	c := counts[name]
	c.add(hit)
	counts[name] = c
}

func compareLines(a, b Line) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Number, b.Number))
}

// String returns the report as a table for people, with the text of all lines
// that are not covered.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-22s %-20s %s\n", "FILE", "LINES", "LINES WITH CONDITIONS, BOTH WAYS")
	for _, name := range slices.Sorted(maps.Keys(r.Lines)) {
		fmt.Fprintf(&b, "%-22s %-20s %s\n", name, r.Lines[name], r.Conditions[name])
	}
	fmt.Fprintf(&b, "%-22s %-20s %s\n", "all", sum(r.Lines), sum(r.Conditions))
	fmt.Fprintf(&b, "\n%-22s %-20s %s\n", "PROGRAM", "BLOCKS", "WAYS OUT OF CONDITIONAL JUMPS")
	for _, name := range slices.Sorted(maps.Keys(r.Blocks)) {
		fmt.Fprintf(&b, "%-22s %-20s %s\n", name, r.Blocks[name], r.Ways[name])
	}
	for _, line := range r.Missed {
		fmt.Fprintf(&b, "\nnever ran:    %s", line)
	}
	for _, line := range r.Halves {
		fmt.Fprintf(&b, "\nonly one way: %s", line)
	}
	return b.String()
}

func sum(counts map[string]Count) (all Count) {
	for _, c := range counts {
		all.Covered += c.Covered
		all.Total += c.Total
	}
	return all
}

// String returns place and text of the line.
func (l Line) String() string {
	return fmt.Sprintf("%s:%d: %s", l.File, l.Number, l.Text)
}
