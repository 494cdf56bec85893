// SPDX-License-Identifier: Apache-2.0

package report

import (
	"math"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/bench"
)

var localRR = Cell{bench.Local, bench.TCPRR, 1, 0}

func TestKnownRatioIsFound(t *testing.T) {
	r := New(one(map[bench.Subject]float64{bench.Wire: 1, bench.WireAgain: 1, bench.Bridge: 0.66, bench.Direct: 0.99}).results())
	line := r.Line(localRR, bench.Direct)
	for _, c := range []struct {
		to      bench.Subject
		m       Measure
		want    float64
		verdict Verdict
	}{
		{bench.Bridge, Rate, 0.99 / 0.66, Better},
		{bench.Bridge, P50, 0.66 / 0.99, Better},
		{bench.Bridge, P99, 0.66 / 0.99, Better},
		{bench.Bridge, CPU, 0.66 / 0.99, Better},
		{bench.Bridge, Own, 0.66 / 0.99, Better},
	} {
		got := line.ratioTo(c.to, c.m)
		if got == nil || got.Pairs != 20 || got.Low > c.want || got.High < c.want || got.High/got.Low > 1.15 || got.Verdict(c.m) != c.verdict {
			t.Errorf("%s to %s: %s, %+v; want %.3f, %s", c.m, c.to, got, got, c.want, c.verdict)
		}
	}
	bridge := r.Line(localRR, bench.Bridge).ratioTo(bench.Wire, Rate)
	if bridge.Verdict(Rate) != Worse {
		t.Errorf("bridge to wire %s: %s; want worse", bridge, bridge.Verdict(Rate))
	}
}

func TestVerdictFlipsWithTheMeasureAndTheSide(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		pairs     int
		m         Measure
		want      Verdict
	}{
		{1.01, 1.2, 6, Rate, Better},
		{0.8, 0.99, 6, Rate, Worse},
		{1.01, 1.2, 6, P99, Worse},
		{0.8, 0.99, 6, CPU, Better},
		{0.99, 1.2, 6, Rate, NotShown},
		{0.8, 1, 6, Rate, NotShown},
		{1.5, 1.6, 5, Rate, NotShown},
	} {
		if got := (Ratio{Median: (c.low + c.high) / 2, Low: c.low, High: c.high, Pairs: c.pairs}).Verdict(c.m); got != c.want {
			t.Errorf("%s in [%v, %v] of %d: %s; want %s", c.m, c.low, c.high, c.pairs, got, c.want)
		}
	}
}

func TestNoiseWidensAndNeverNarrows(t *testing.T) {
	e := bench.Estimate{Median: 1.03, Low: 1.02, High: 1.05, Count: 20}
	before := newRatio(e, 0)
	if before.Low != e.Low || before.High != e.High || before.Verdict(Rate) != Better {
		t.Errorf("without noise %+v", before)
	}
	for _, noise := range []float64{0.001, 0.01, 0.03, 0.5} {
		r := newRatio(e, noise)
		if r.Low >= before.Low || r.High <= before.High || r.Median != e.Median {
			t.Errorf("noise %v makes %s of %s", noise, &r, &before)
		}
		if math.Abs(math.Log(before.Low/r.Low)-math.Log(r.High/before.High)) > 1e-12 {
			t.Errorf("noise %v moves the ends by different factors: %s", noise, &r)
		}
		before = r
	}
	if before.Verdict(Rate) != NotShown {
		t.Errorf("verdict on %s: %s", &before, before.Verdict(Rate))
	}
}

// Two wires that differ by 4 % hide a difference of 3 %, but not one of 50 %.
func TestUnequalWiresHideSmallDifferences(t *testing.T) {
	verdicts := func(again float64) (small, large Verdict) {
		r := New(one(map[bench.Subject]float64{
			bench.Wire: 1, bench.WireAgain: again, bench.Bridge: 0.7, bench.Direct: 1.03, bench.Tracked: 1.05,
		}).results())
		return r.Line(localRR, bench.Direct).ratioTo(bench.Wire, Rate).Verdict(Rate), r.Line(localRR, bench.Direct).ratioTo(bench.Bridge, Rate).Verdict(Rate)
	}
	if small, large := verdicts(1); small != Better || large != Better {
		t.Errorf("equal wires: %s, %s; want both better", small, large)
	}
	for _, again := range []float64{1.04, 1 / 1.04} {
		if small, large := verdicts(again); small != NotShown || large != Better {
			t.Errorf("second wire %.2f of the first: %s, %s; want only the large difference", again, small, large)
		}
	}
}

// Cases that are equal but for what stays the same for a whole run, as places in
// memory do, are what the widening is for: without it many of them are told apart.
func TestEqualCasesAreRarelyToldApart(t *testing.T) {
	all, widened, bare := 0, 0, 0
	for seed := range uint64(6) {
		s := ordinary()
		s.seed, s.bias, s.rounds = seed, 0.012, 15
		s.connections = []int{1}
		for name := range s.rates {
			s.rates[name] = 1
		}
		delete(s.rates, big(bench.Direct))
		delete(s.rates, big(bench.Tracked))
		for _, l := range New(s.results()).Lines {
			ratio := l.ratioTo(bench.Bridge, Rate)
			if ratio == nil || l.Case == bench.Wire || l.Case == bench.WireAgain {
				continue
			}
			all++
			if ratio.Verdict(Rate) != NotShown {
				widened++
			}
			raw := Ratio{Low: ratio.Low * math.Exp(ratio.Noise), High: ratio.High * math.Exp(-ratio.Noise), Pairs: ratio.Pairs}
			if raw.Verdict(Rate) != NotShown {
				bare++
			}
		}
	}
	t.Logf("of %d equal cases %d are told apart, without widening %d", all, widened, bare)
	if widened*100 > 7*all { // 5 in the long run, and bootstrap of 15 values is a little narrow
		t.Errorf("%d of %d equal cases are told apart, more than 7 %%", widened, all)
	}
	if bare < 3*widened {
		t.Errorf("without widening %d of %d are: the test shows nothing", bare, all)
	}
}

func TestLuckyCellIsNotBelievedToBeQuiet(t *testing.T) {
	s := small()
	s.connections = []int{1}
	s.bias = 0.02
	r := New(s.results())
	lucky := 0
	for cell, noise := range r.Noise.cells {
		floor := r.Noise.floor[Rate]
		if of, ok := r.Noise.floors[kindOf(cell)][Rate]; ok {
			floor = of
		}
		if noise[Rate] < floor {
			lucky++
		}
		if got := r.Noise.Of(cell, Rate); got < floor || got < noise[Rate] {
			t.Errorf("%s: noise %v, less than %v or %v", cell, got, floor, noise[Rate])
		}
	}
	if lucky == 0 {
		t.Error("no cell was lucky: the test shows nothing")
	}
}

// Bulk that scatters says nothing about transactions that do not.
func TestNoiseIsThatOfTheWorkload(t *testing.T) {
	s := ordinary()
	s.scatter = 0.01
	s.biases = map[bench.Workload]float64{bench.TCPStream: 0.2, bench.TCPMaerts: 0.2}
	for _, load := range []float64{0, 3} {
		results := s.results()
		results.Machine.LoadBefore = load
		r := New(results)
		for cell := range r.Noise.cells {
			noise, bulk := r.Noise.Of(cell, Rate), cell.Workload == bench.TCPStream || cell.Workload == bench.TCPMaerts
			if bulk && noise < 0.03 || !bulk && noise > 0.03 {
				t.Errorf("load average %v, %s: noise %v", load, cell, noise)
			}
		}
		// Too few of a kind: all cells of the run say what is usual.
		few := Cell{Path: bench.Local, Workload: bench.TCPRR, Connections: 7}
		if got := r.Noise.Of(few, Rate); got != r.Noise.floor[Rate] || got == 0 {
			t.Errorf("load average %v: noise of a cell of a kind with few is %v, want %v", load, got, r.Noise.floor[Rate])
		}
	}
}

func TestNoisyMachineSaysSoAndShowsLess(t *testing.T) {
	s := small()
	s.bias = 0.02
	s.rates[bench.Kernel], s.rates["ptp"] = s.rates[bench.Bridge]*1.05, s.rates[bench.Bridge]*1.04
	shown := func(change func(*bench.Results)) (*Report, int) {
		results := s.results()
		change(results)
		r := New(results)
		count := 0
		for _, l := range r.Lines {
			if ratio := l.ratioTo(bench.Bridge, Rate); ratio != nil && ratio.Verdict(Rate) != NotShown {
				count++
			}
		}
		return r, count
	}
	quiet, all := shown(func(*bench.Results) {})
	if quiet.Noise.String() != "" {
		t.Fatalf("quiet machine: %s", quiet.Noise)
	}
	for want, change := range map[string]func(*bench.Results){
		"load average was 1.5":       func(r *bench.Results) { r.Machine.LoadBefore = 1.5 },
		"gave 4.0 % of the CPU time": func(r *bench.Results) { r.Machine.Steal = 0.04 },
		"others used 41 % of its CPUs": func(r *bench.Results) {
			for i := range r.Flows {
				r.Flows[i].Busy += 0.4 * 2 * r.Flows[i].Seconds
			}
		},
	} {
		r, count := shown(change)
		if text := r.Noise.String(); !strings.HasPrefix(text, "This machine was noisy: ") || !strings.Contains(text, want) {
			t.Errorf("noise %q; want %q", text, want)
		}
		if count >= all {
			t.Errorf("%s: %d verdicts, no less than the %d of a quiet machine", want, count, all)
		}
	}
}

func TestUnequalWiresAreAFactOfTheMachine(t *testing.T) {
	r := New(one(map[bench.Subject]float64{bench.Wire: 1, bench.WireAgain: 1.06, bench.Bridge: 0.7, bench.Direct: 1}).results())
	if !strings.Contains(r.Noise.String(), "two equal wires differed by") {
		t.Errorf("noise %q", r.Noise)
	}
	if r := New(one(map[bench.Subject]float64{bench.Wire: 1, bench.Bridge: 0.7}).results()); r.Noise.Measured || r.Noise.Of(localRR, Rate) != 0 {
		t.Errorf("noise of a single wire: %+v", r.Noise)
	}
}

func TestSamplesThatDoNotCountEnterNothing(t *testing.T) {
	results := one(map[bench.Subject]float64{bench.Wire: 1, bench.WireAgain: 1, bench.Bridge: 0.7, bench.Direct: 1}).results()
	want := New(results).Line(localRR, bench.Direct).Medians[Rate]
	for i := range results.Flows {
		if s := &results.Flows[i]; s.Subject == bench.Direct && s.Round >= 15 {
			s.Invalid, s.Units = "went another way", s.Units*100
		}
	}
	line := New(results).Line(localRR, bench.Direct)
	if line.Rounds != 20 || line.Invalid != 5 || line.Complaint != "went another way" || line.ratioTo(bench.Bridge, Rate).Pairs != 15 {
		t.Errorf("line %+v", line)
	}
	if line.Medians[Rate] > want*2 {
		t.Errorf("median rate %v, where only %v are valid", line.Medians[Rate], want)
	}
}

func TestPairsAreOfOneRound(t *testing.T) {
	results := one(map[bench.Subject]float64{bench.Wire: 1, bench.WireAgain: 1, bench.Bridge: 0.5, bench.Direct: 1}).results()
	// A machine that becomes ten times as fast in some rounds, which no ratio may show.
	for i := range results.Flows {
		if results.Flows[i].Round%3 == 0 {
			results.Flows[i].Units *= 10
		}
	}
	if got := New(results).Line(localRR, bench.Direct).ratioTo(bench.Bridge, Rate); math.Abs(got.Median-2) > 0.1 || got.High/got.Low > 1.2 {
		t.Errorf("ratio %s; want 2", got)
	}
}
