// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/bench"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares a text with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	is, was := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(is), len(was)) {
		if is[i] != was[i] {
			t.Fatalf("%s, line %d:\n%s\nwant\n%s\n(-update writes it)", name, i+1, is[i], was[i])
		}
	}
	t.Fatalf("%s: %d lines; want %d (-update writes it)", name, len(is), len(was))
}

func markdownOf(t *testing.T, r *bench.Results) []byte {
	t.Helper()
	report := New(r)
	var out bytes.Buffer
	if err := report.writeMarkdown(&out, report.figures()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// smallWhole is a small run with all parts.
func smallWhole() *bench.Results {
	s := small()
	r := s.results()
	s.withGrowth(r, map[bench.Subject]float64{bench.Bridge: 0.13, "bridge-nft": 0.26, bench.Direct: 0, bench.Tracked: 0})
	s.withControl(r)
	return r
}

func TestPageIsAsItWas(t *testing.T) { golden(t, "report.md", markdownOf(t, smallWhole())) }

func TestPageOfANoisyAndBrokenRun(t *testing.T) {
	r := one(map[bench.Subject]float64{bench.Wire: 1, bench.WireAgain: 1.05, bench.Bridge: 0.7, bench.Direct: 1}).results()
	r.Machine.LoadBefore, r.Machine.Steal, r.Machine.Governor, r.Machine.Turbo = 3.2, 0.05, "powersave", "on"
	r.Incomplete = "connections: interrupted"
	r.Failures = []bench.Failure{{Subject: "ptp", What: "build the network", Why: "a|b <c>"}, {What: "control plane", Why: "no plugin"}}
	r.Crosschecks = []bench.Crosscheck{{What: "TCP_RR", Tool: "sockperf", Unit: "transactions/s", Note: "not installed"}}
	for i := range r.Flows {
		if r.Flows[i].Subject == bench.Direct && r.Flows[i].Round < 4 {
			r.Flows[i].Invalid = "from_endpoint carried 3 of 100 packets"
		}
	}
	golden(t, "noisy.md", markdownOf(t, r))
}

func TestPageOfNothing(t *testing.T) {
	out := string(markdownOf(t, &bench.Results{Version: bench.ResultsVersion}))
	for _, want := range []string{"# What a container network costs", "| not measured |", "no second wire"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestPageWithoutASecondWirePromisesNoWiderIntervals(t *testing.T) {
	r := one(map[bench.Subject]float64{bench.Wire: 1, bench.Bridge: 0.7}).results()
	r.Machine.LoadBefore = 3
	out := string(markdownOf(t, r))
	if !strings.Contains(out, "This machine was noisy") || strings.Contains(out, "Intervals are wider") {
		t.Errorf("page of a noisy run without a second wire:\n%.600s", out)
	}
}

func TestNamesOfUsersDoNotBreakTheTables(t *testing.T) {
	r := tiny()
	r.Cases = append(r.Cases, bench.Case{Name: "a|b<script>", Title: "two\nlines | and a `tick`", Kind: bench.KindPlugin})
	s := r.Flows[0]
	s.Subject = "a|b<script>"
	r.Flows = append(r.Flows, s)
	out := string(markdownOf(t, r))
	if strings.Contains(out, "<script>") || strings.Contains(out, "a|b") || !strings.Contains(out, `a\|b&lt;script&gt;`) {
		t.Errorf("page has the name as it is:\n%s", out)
	}
}

// meeting is a run that meets every target.
func meeting() synthetic {
	s := ordinary()
	s.rounds, s.scatter, s.bias = 10, 0.005, 0.0005
	s.paths, s.connections = bench.Paths[:2], []int{1}
	s.rates[bench.Direct], s.rates[bench.Tracked], s.rates[bench.Kernel] = 0.99, 0.985, 0.7
	return s
}

func reportOf(s synthetic, rises map[bench.Subject]float64) *Report {
	r := s.results()
	s.withGrowth(r, rises)
	return New(r)
}

func TestGoodRunMeetsEveryTarget(t *testing.T) {
	r := reportOf(meeting(), map[bench.Subject]float64{bench.Direct: 0})
	if len(r.Targets) != 24 {
		t.Errorf("%d targets", len(r.Targets))
	}
	for _, target := range r.Targets {
		if target.State != Met {
			t.Errorf("%+v", target)
		}
	}
}

func TestEachTargetCanBeMissed(t *testing.T) {
	for _, c := range []struct {
		change func(*synthetic, map[bench.Subject]float64)
		want   map[string]State
	}{
		{func(s *synthetic, _ map[bench.Subject]float64) { s.rates[bench.Direct] = 0.95 }, map[string]State{
			"same node TCP_RR, direct: at least 0.97 of wire": Missed, "same node TCP_STREAM, direct: at least 0.97 of wire": Missed,
			"same node UDP_64, direct: at least 0.90 of wire": Met, "same node TCP_CRR, direct: at least 0.90 of wire": Met,
		}},
		{func(s *synthetic, _ map[bench.Subject]float64) { s.rates[bench.Direct] = 0.6 }, map[string]State{
			"same node UDP_1400, direct: above bridge": Missed, "same node TCP_CRR, direct: at least 0.90 of wire": Missed,
			"same node UDP_64, direct: at least 0.90 of wire": Missed, "direct: no workload slower than bridge": Missed,
			"direct: CPU per operation below bridge everywhere": Missed, "tracked: no workload slower than bridge": Met,
		}},
		{func(s *synthetic, _ map[bench.Subject]float64) { s.rates[bench.Direct] = s.rates[bench.Bridge] }, map[string]State{
			"same node TCP_RR, direct: above bridge": Open, "direct: CPU per operation below bridge everywhere": Open,
			"direct: no workload slower than bridge": Met,
		}},
		{func(s *synthetic, _ map[bench.Subject]float64) { s.rates[bench.Tracked] = 0.88 }, map[string]State{
			"off node TCP_RR, tracked: at least 0.90 of wire": Missed, "off node TCP_STREAM, tracked: at least 0.90 of wire": Missed,
			"tracked: every rate at least 0.97 of bridge": Met,
		}},
		{func(s *synthetic, _ map[bench.Subject]float64) { s.rates[bench.Kernel] = 0.6 }, map[string]State{
			"kernel: every rate at least 0.97 of bridge": Missed,
		}},
		{func(s *synthetic, _ map[bench.Subject]float64) { s.rates[big(bench.Direct)] = 1.1 }, map[string]State{
			"same node TCP_STREAM, direct big: at least 1.20 of wire": Missed, "same node TCP_STREAM, tracked big: at least 1.20 of wire": Met,
		}},
		{func(_ *synthetic, rises map[bench.Subject]float64) { rises[bench.Direct] = 0.1 }, map[string]State{
			"same node TCP_CRR, endpoints: 1000, direct: no slower than with 1": Missed,
		}},
		{func(_ *synthetic, rises map[bench.Subject]float64) { delete(rises, bench.Direct) }, map[string]State{
			"same node TCP_CRR, endpoints: 1000, direct: no slower than with 1": NotMeasured,
		}},
		{func(s *synthetic, _ map[bench.Subject]float64) { s.rounds = 5 }, map[string]State{
			"same node TCP_RR, direct: above bridge": Open, "same node TCP_RR, direct: at least 0.97 of wire": Open,
			"direct: no workload slower than bridge": Open,
		}},
		// A machine so noisy that the wires differ by a fifth.
		{func(s *synthetic, _ map[bench.Subject]float64) {
			s.rates[bench.WireAgain], s.rates[bench.Tracked] = 0.8, 0.6
		}, map[string]State{
			"same node TCP_RR, direct: at least 0.97 of wire": Open, "same node TCP_RR, direct: above bridge": Met,
			"tracked: no workload slower than bridge": Open, "same node TCP_RR, tracked: at least 0.97 of wire": Missed,
		}},
	} {
		s, rises := meeting(), map[bench.Subject]float64{bench.Direct: 0}
		c.change(&s, rises)
		states := map[string]Target{}
		for _, target := range reportOf(s, rises).Targets {
			states[target.What] = target
		}
		for what, want := range c.want {
			if got := states[what]; got.State != want {
				t.Errorf("%s: %q, %s; want %q", what, got.State, got.Got, want)
			}
		}
	}
}

func TestTargetOfInvalidRoundsIsMissed(t *testing.T) {
	results := meeting().results()
	for i := range results.Flows {
		if s := &results.Flows[i]; s.Subject == bench.Direct && s.Round < 2 {
			s.Invalid = "went another way"
		}
	}
	target := New(results).Targets[0]
	if target.State != Missed || !strings.HasSuffix(target.Got, "2 of 10 rounds invalid") {
		t.Errorf("%+v", target)
	}
}
