// SPDX-License-Identifier: Apache-2.0

// The difference of two runs.

package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/zipline-cni/zipline/bench"
)

// Change is what became of a ratio from one run to another.
type Change struct {
	// What was measured: a cell with its case, or ADD or DEL.
	What    string
	Measure Measure
	// Before and After are the ratios to what was measured beside it in either run:
	// for connections the wire, or on a network that grows the same case on a small
	// one; for ADD and DEL the bridge.
	Before, After float64
	// Ratio is After to Before.
	Ratio Ratio
}

// Verdict judges the change: [Worse] is a regression.
func (c Change) Verdict() Verdict { return c.Ratio.Verdict(c.Measure) }

// Comparison is all that two runs have in common.
type Comparison struct {
	Changes []Change
	// Notes say what differs and does not forbid to compare.
	Notes []string
}

// compared are the measures of connections that runs are compared by. The CPU time
// of the ends is left out: the machine's has it in it.
var compared = []Measure{Rate, P50, P99, CPU}

// Compare compares two runs, a before b, by those of the plugins' cases that are
// named, or by all. It refuses runs that did not measure the same: other cases, or
// the same in another way. The machine may be another one, or have another speed: only ratios to
// what each run measured beside them are compared.
//
// All intervals together hold with 95 %: if nothing has changed, one comparison in
// twenty shows anything at all, however many lines it has.
func Compare(a, b *bench.Results, cases ...bench.Subject) (*Comparison, error) {
	chosen, err := inCommon(a, b, cases)
	if err != nil {
		return nil, err
	}
	before, after := New(a), New(b)
	c := &Comparison{Notes: notes(a, b, before, after)}
	var drafts []draft
	for _, cell := range before.samples.cells {
		for _, s := range chosen {
			for _, m := range compared {
				noise := before.Noise.Of(cell, m) + after.Noise.Of(cell, m)
				drafts = append(drafts, draft{fmt.Sprintf("%s, %s", cell, s), m, before.pairs(cell, s, m), after.pairs(cell, s, m), noise})
			}
		}
	}
	if len(cases) == 0 {
		drafts = append(drafts, attachDrafts(slices.Concat(before.Attach, before.Bursts), slices.Concat(after.Attach, after.Bursts))...)
	}
	drafts = slices.DeleteFunc(drafts, func(d draft) bool { return len(d.before) == 0 || len(d.after) == 0 })
	if len(drafts) == 0 {
		return nil, errors.New("compare runs: they have nothing in common")
	}
	for _, d := range drafts {
		c.Changes = append(c.Changes, d.change(stretch(len(drafts)), a.Seed, b.Seed))
	}
	return c, nil
}

// pairs returns the ratios of a case in a cell to what was measured beside it.
func (r *Report) pairs(cell Cell, s bench.Subject, m Measure) []float64 {
	others := place{cell, bench.Wire}
	if cell.Endpoints > 0 {
		if others = (place{r.smallest(cell, s), s}); others.cell == cell {
			return nil
		}
	}
	return bench.PairedRatios(valuesOf(r.samples.valid(cell, s), m), valuesOf(r.samples.valid(others.cell, others.subject), m))
}

// draft is a change in the making: the ratios of the pairs of either run.
type draft struct {
	what          string
	measure       Measure
	before, after []float64
	noise         float64
}

// attachDrafts are those of ADD and DEL. There is no second bridge to know their noise by.
func attachDrafts(before, after []AttachRow) []draft {
	var drafts []draft
	for _, was := range before {
		i := slices.IndexFunc(after, func(r AttachRow) bool { return r.String() == was.String() })
		if i < 0 {
			continue
		}
		for _, s := range slices.Sorted(maps.Keys(was.pairs)) {
			drafts = append(drafts, draft{fmt.Sprintf("%s, %s", was, s), P50, was.pairs[s], after[i].pairs[s], 0})
		}
	}
	return drafts
}

func (d draft) change(stretch float64, seedBefore, seedAfter uint64) Change {
	// Two runs are independent, though both may have the same seed.
	was, is := bench.Medians(d.before, seedBefore), bench.Medians(d.after, ^seedAfter)
	for i := range is {
		is[i] /= was[i]
	}
	c := Change{What: d.what, Measure: d.measure, Before: bench.Median(d.before), After: bench.Median(d.after)}
	c.Ratio = newRatio(bench.Estimate{
		Median: c.After / c.Before, Count: min(len(d.before), len(d.after)),
		Low: bench.Quantile(is, 0.025), High: bench.Quantile(is, 0.975),
	}, d.noise).stretched(stretch)
	return c
}

// inCommon returns the cases to compare two runs by, or why they can't be.
func inCommon(a, b *bench.Results, names []bench.Subject) ([]bench.Subject, error) {
	var why []string
	differ := func(what string, x, y any) { why = append(why, fmt.Sprintf("%s: %v, then %v", what, x, y)) }
	if a.Placement != b.Placement {
		differ("CPUs of the ends", a.Placement, b.Placement)
	}
	if a.Duration != b.Duration || a.Warmup != b.Warmup {
		differ("time of a measurement", fmt.Sprintf("%v after %v", a.Duration, a.Warmup), fmt.Sprintf("%v after %v", b.Duration, b.Warmup))
	}
	of := func(r *bench.Results, name bench.Subject) *bench.Case {
		i := slices.IndexFunc(r.Cases, func(c bench.Case) bool { return c.Name == name })
		if i < 0 {
			return nil
		}
		return &r.Cases[i]
	}
	var chosen []bench.Subject
	for _, c := range slices.Concat(a.Cases, b.Cases) {
		if c.Kind == bench.KindPlugin && !slices.Contains(chosen, c.Name) && (len(names) == 0 || slices.Contains(names, c.Name)) {
			chosen = append(chosen, c.Name)
		}
	}
	for _, name := range slices.Concat([]bench.Subject{bench.Wire}, names, chosen) {
		switch x, y := of(a, name), of(b, name); {
		case x == nil && y == nil:
			why = append(why, fmt.Sprintf("case %q: in neither run", name))
		case x == nil || y == nil:
			why = append(why, fmt.Sprintf("case %q: only in the %s run", name, map[bool]string{true: "first", false: "second"}[y == nil]))
		case !sameCase(*x, *y):
			why = append(why, fmt.Sprintf("case %q: another network than before", name))
		}
	}
	if len(why) > 0 {
		slices.Sort(why)
		return nil, fmt.Errorf("compare runs that did not measure the same: %s", strings.Join(slices.Compact(why), "; "))
	}
	return chosen, nil
}

// sameCase says whether two cases are measured alike, whatever they take part in.
func sameCase(a, b bench.Case) bool {
	return a.Kind == b.Kind && a.BridgeNetfilter == b.BridgeNetfilter && a.Carried == b.Carried && bytes.Equal(compact(a.Network), compact(b.Network))
}

// compact returns JSON with neither spaces nor an order of keys.
func compact(text json.RawMessage) []byte {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return text
	}
	out, err := json.Marshal(value)
	if err != nil {
		return text
	}
	return out
}

// notes say what differs between the machines, and which was noisy.
func notes(a, b *bench.Results, before, after *Report) []string {
	var out []string
	for _, f := range []struct{ what, was, is string }{
		{"kernel", a.Machine.Kernel, b.Machine.Kernel}, {"CPU", a.Machine.Model, b.Machine.Model},
		{"plugin", a.Machine.Zipline, b.Machine.Zipline}, {"reference plugins", a.Machine.Reference, b.Machine.Reference},
	} {
		if f.was != f.is {
			out = append(out, fmt.Sprintf("%s: %s, then %s", f.what, cmp.Or(f.was, "unknown"), cmp.Or(f.is, "unknown")))
		}
	}
	for i, r := range []*Report{before, after} {
		if noise := r.Noise.String(); noise != "" {
			out = append(out, fmt.Sprintf("%s run: %s", []string{"first", "second"}[i], noise))
		}
	}
	return out
}

// Regressions returns what is shown to have become worse.
func (c *Comparison) Regressions() []Change { return c.with(Worse) }

func (c *Comparison) with(v Verdict) []Change {
	return slices.DeleteFunc(slices.Clone(c.Changes), func(c Change) bool { return c.Verdict() != v })
}

// WriteText writes what has changed, or all lines, as a table for a terminal.
func (c *Comparison) WriteText(w io.Writer, all bool) error {
	var out bytes.Buffer
	for _, note := range c.Notes {
		_, _ = fmt.Fprintln(&out, note)
	}
	worse, better := c.with(Worse), c.with(Better)
	lines := slices.Concat(worse, better)
	if all {
		lines = c.Changes
	}
	if len(lines) > 0 {
		table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "\tmeasure\tbefore\tafter\tratio\t")
		for _, l := range lines {
			word := map[Verdict]string{Worse: "REGRESSED", Better: "improved"}[l.Verdict()]
			_, _ = fmt.Fprintf(table, "%s\t%s\t%.3f\t%.3f\t%s\t%s\n", l.What, l.Measure, l.Before, l.After, &l.Ratio, word)
		}
		_ = table.Flush() // into memory
	}
	_, _ = fmt.Fprintf(&out, "%d regressed, %d improved, of %d comparisons; before and after are ratios to the wire, of ADD and DEL to the bridge, of grown networks to small ones.\n",
		len(worse), len(better), len(c.Changes))
	if _, err := out.WriteTo(w); err != nil {
		return fmt.Errorf("write comparison: %w", err)
	}
	return nil
}
