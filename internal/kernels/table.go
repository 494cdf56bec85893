// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// summary prints a kernel's counts and all that failed, as soon as it is known.
func (r *report) summary(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s: %s in %v\n", r.release, r.counts(), r.elapsed.Round(time.Second))
	for _, t := range r.results {
		if t.action == "fail" {
			_, _ = fmt.Fprintf(w, "FAIL %s %s\n%s", t.pkg, t.test, t.output)
		}
	}
	for _, text := range r.broken {
		_, _ = fmt.Fprintf(w, "BROKEN %s\n", text)
	}
	if r.console != "" {
		_, _ = fmt.Fprintln(w, r.console)
	}
}

func (r *report) counts() string {
	counts := map[string]int{}
	for _, t := range r.results {
		counts[t.action]++
	}
	return fmt.Sprintf("%d passed, %d failed, %d skipped", counts["pass"], counts["fail"], counts["skip"])
}

// widestFact is the length of what has a place in a column.
const widestFact = 30

// printTables prints what each kernel has and how each test ended on it.
// Returns whether all is well.
func printTables(w io.Writer, reports []*report) bool {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	heads := []string{"kernel"}
	well := true
	for _, r := range reports {
		heads = append(heads, r.series)
		well = well && len(r.broken) == 0 && !r.failed("")
	}
	row := func(cells ...string) { _, _ = fmt.Fprintln(table, strings.Join(cells, "\t")) }
	row(heads...)
	var reasons []string
	for _, name := range names(reports, factNames) {
		cells := []string{name}
		for _, r := range reports {
			value := r.fact(name)
			if len(value) > widestFact {
				reasons = append(reasons, fmt.Sprintf("FACT %s %s: %s", r.series, name, value))
				value = "see below"
			}
			cells = append(cells, value)
		}
		row(cells...)
	}
	row()
	for _, name := range names(reports, testNames) {
		cells := []string{name}
		for _, r := range reports {
			cells = append(cells, r.result(name))
			if reason := r.skipReason(name); reason != "" {
				reasons = append(reasons, fmt.Sprintf("SKIP %s %s: %s", r.series, name, reason))
			}
		}
		row(cells...)
	}
	_ = table.Flush()
	_, _ = fmt.Fprintln(w)
	for _, reason := range reasons {
		_, _ = fmt.Fprintln(w, reason)
	}
	for _, r := range reports {
		_, _ = fmt.Fprintf(w, "%s: %s in %v\n", r.release, r.counts(), r.elapsed.Round(time.Second))
	}
	return well
}

// names lists what any of the reports has, in the order of the first that has it.
func names(reports []*report, of func(*report) []string) []string {
	var list []string
	for _, r := range reports {
		for _, name := range of(r) {
			if !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	return list
}

func factNames(r *report) (list []string) {
	for _, f := range r.facts {
		list = append(list, f.name)
	}
	return list
}

func testNames(r *report) (list []string) {
	for _, t := range r.results {
		list = append(list, t.pkg+" "+t.test)
	}
	slices.Sort(list)
	return list
}

func (r *report) fact(name string) string {
	for _, f := range r.facts {
		if f.name == name {
			return f.value
		}
	}
	return "-"
}

func (r *report) result(name string) string {
	for _, t := range r.results {
		if t.pkg+" "+t.test == name {
			return strings.ToUpper(t.action)
		}
	}
	return "-"
}

// skipReason returns what a skipped test said.
func (r *report) skipReason(name string) string {
	for _, t := range r.results {
		if t.pkg+" "+t.test != name || t.action != "skip" {
			continue
		}
		for line := range strings.Lines(t.output) {
			if strings.Contains(line, ".go:") {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}
