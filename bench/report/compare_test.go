// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bench"
)

// again is the same run on another day, on a machine twice as fast.
func again(s synthetic) *bench.Results {
	s.seed += 1000
	r := s.results()
	for i := range r.Flows {
		f := &r.Flows[i]
		f.Units, f.Total = f.Units*2, f.Total*2
		if f.Latency != nil {
			f.Latency.P50, f.Latency.P99, f.Latency.P999 = f.Latency.P50/2, f.Latency.P99/2, f.Latency.P999/2
		}
	}
	return r
}

func TestSpeedOfTheMachineIsNoChange(t *testing.T) {
	s := ordinary()
	s.paths = bench.Paths[:2]
	c, err := Compare(s.results(), again(s))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Changes) < 500 {
		t.Fatalf("%d comparisons", len(c.Changes))
	}
	for _, change := range c.Changes {
		if change.Verdict() != NotShown {
			t.Errorf("%s, %s: %s: %s", change.What, change.Measure, &change.Ratio, change.Verdict())
		}
	}
}

func TestRegressionIsFoundWhereItIs(t *testing.T) {
	s := ordinary()
	s.rounds, s.paths, s.connections = 30, bench.Paths[:2], []int{1}
	slower := s
	slower.rates = map[bench.Subject]float64{}
	for name, rate := range s.rates {
		slower.rates[name] = rate
	}
	slower.rates[bench.Direct] *= 0.85
	c, err := Compare(s.results(), again(slower))
	if err != nil {
		t.Fatal(err)
	}
	found, of := 0, 0
	for _, change := range c.Changes {
		direct := strings.HasSuffix(change.What, ", direct")
		if direct {
			of++
		}
		if direct && change.Verdict() == Worse {
			found++
		}
		if !direct && change.Verdict() == Worse || change.Verdict() == Better {
			t.Errorf("%s, %s: %s: %s", change.What, change.Measure, &change.Ratio, change.Verdict())
		}
	}
	if found < of/2 || of == 0 {
		t.Errorf("found %d regressions of %d", found, of)
	}
	back, err := Compare(again(slower), s.results())
	if err != nil {
		t.Fatal(err)
	}
	if len(back.Regressions()) > 0 || len(back.with(Better)) < len(c.Regressions())/2 {
		t.Errorf("the other way round: %d regressions, %d improvements", len(back.Regressions()), len(back.with(Better)))
	}
}

func TestUnequalWiresOfEitherRunHideASmallChange(t *testing.T) {
	regressions := func(firstAgain, secondAgain float64) int {
		s := one(map[bench.Subject]float64{bench.Wire: 1, bench.WireAgain: firstAgain, bench.Bridge: 0.7, bench.Direct: 1})
		before := s.results()
		s.seed, s.rates[bench.WireAgain], s.rates[bench.Direct] = 2, secondAgain, 0.88
		c, err := Compare(before, s.results())
		if err != nil {
			t.Fatal(err)
		}
		return len(c.Regressions())
	}
	if got := regressions(1, 1); got != len(compared) {
		t.Errorf("equal wires: %d regressions; want one of each measure", got)
	}
	for _, wires := range [][2]float64{{1.15, 1}, {1, 0.87}} {
		if got := regressions(wires[0], wires[1]); got != 0 {
			t.Errorf("second wires %v of the first: %d regressions", wires, got)
		}
	}
}

func TestRunIsEqualToItself(t *testing.T) {
	r := smallWhole()
	c, err := Compare(r, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range c.Changes {
		if change.Ratio.Median != 1 || change.Verdict() != NotShown {
			t.Errorf("%s, %s: %s", change.What, change.Measure, &change.Ratio)
		}
	}
	for _, what := range []string{"ADD with 1000 endpoints, zipline", "200 times DEL in parallel, zipline", "same node TCP_CRR, endpoints: 1000, direct"} {
		if !slices.ContainsFunc(c.Changes, func(c Change) bool { return c.What == what }) {
			t.Errorf("nothing of %q", what)
		}
	}
}

func TestSlowerADDIsARegression(t *testing.T) {
	s := small()
	s.rounds, s.connections = 20, []int{1}
	before, after := s.results(), s.results()
	s.withControl(before)
	s.seed++
	s.withControl(after)
	for i := range after.Attach {
		if a := &after.Attach[i]; a.Subject == bench.Zipline && a.Verb == "ADD" {
			a.Seconds *= 1.5
		}
	}
	c, err := Compare(before, after)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range c.Changes {
		slower := strings.HasPrefix(change.What, "ADD with") && change.Ratio.Pairs >= minPairs
		if slower != (change.Verdict() == Worse) {
			t.Errorf("%s: %s: %s", change.What, &change.Ratio, change.Verdict())
		}
	}
}

func TestRunsThatDoNotMatchAreRefused(t *testing.T) {
	s := one(ordinary().rates)
	for want, change := range map[string]func(*bench.Results){
		"CPUs of the ends: together, then apart":                              func(r *bench.Results) { r.Placement = bench.Apart },
		"time of a measurement: 200ms after 50ms, then 1s after 50ms":         func(r *bench.Results) { r.Duration = time.Second },
		`case "direct": another network than before`:                          func(r *bench.Results) { r.Cases[8].Network = json.RawMessage(`{"name":"x"}`) },
		`case "ptp": only in the first run`:                                   func(r *bench.Results) { r.Cases = slices.Delete(r.Cases, 6, 7) },
		`case "wire": only in the first run`:                                  func(r *bench.Results) { r.Cases = slices.Delete(r.Cases, 1, 2) },
		`case "direct": another network than before; case "tracked": another`: func(r *bench.Results) { r.Cases[8].BridgeNetfilter, r.Cases[9].Carried = true, "kernel" },
	} {
		other := s.results()
		change(other)
		if _, err := Compare(s.results(), other); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want %q", err, want)
		}
	}
	other := s.results()
	other.Cases = slices.Delete(other.Cases, 6, 7) // ptp
	if _, err := Compare(s.results(), other, bench.Direct); err != nil {
		t.Errorf("cases that both have: %v", err)
	}
	if _, err := Compare(s.results(), other, "x"); err == nil || !strings.Contains(err.Error(), `"x": in neither run`) {
		t.Errorf("unknown case: %v", err)
	}
	spaced := s.results()
	for _, r := range []*bench.Results{other, spaced} {
		r.Cases[3].Network = json.RawMessage(`{"a":1,"b":2}`)
	}
	spaced.Cases[3].Network = json.RawMessage(`{"b": 2, "a": 1}`)
	if _, err := Compare(other, spaced, bench.Bridge); err != nil {
		t.Errorf("the same network in other words: %v", err)
	}
}

func TestComparisonNamesRegressionsMachinesAndCounts(t *testing.T) {
	s := one(map[bench.Subject]float64{bench.Wire: 1, bench.WireAgain: 1, bench.Bridge: 0.7, bench.Direct: 1})
	after := s
	after.rates = map[bench.Subject]float64{bench.Wire: 1, bench.WireAgain: 1, bench.Bridge: 0.7, bench.Direct: 0.7}
	b := after.results()
	b.Machine.Kernel, b.Machine.Steal = "6.19.0 x86_64", 0.2
	c, err := Compare(s.results(), b)
	if err != nil {
		t.Fatal(err)
	}
	for all, want := range map[bool][]string{
		false: {"kernel: 6.18.1 x86_64, then 6.19.0", "second run: This machine was noisy", "REGRESSED", "same node TCP_RR, direct", "4 regressed, 0 improved, of 8"},
		true:  {"same node TCP_RR, bridge"},
	} {
		var out bytes.Buffer
		if err := c.WriteText(&out, all); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("no %q in\n%s", w, out.String())
			}
		}
	}
}

func TestMoreComparisonsNeedMoreEvidence(t *testing.T) {
	if got := stretch(1); got != 1 {
		t.Errorf("one comparison is stretched by %v", got)
	}
	// 3.48 is the quantile of a normal distribution for 0.05/2/100.
	if got := stretch(100); got < 3.47/1.96 || got > 3.49/1.96 {
		t.Errorf("a hundred are stretched by %v", got)
	}
}
