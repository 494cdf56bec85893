// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// goodRates are what a run gives that meets every target, in transactions or bytes
// per second; a subject's CPU is busy all the time.
var goodRates = map[Path]map[Subject]float64{
	Local:   {Wire: 1000, WireAgain: 1000, Bridge: 800, Tracked: 980, Direct: 990, Kernel: 820},
	Outside: {Wire: 1000, WireAgain: 1000, Bridge: 850, Tracked: 920, Direct: 920, Kernel: 860},
}

// goodFlows are three rounds on a machine that becomes slower from one to the next,
// which no ratio may show.
func goodFlows() []FlowSample {
	var samples []FlowSample
	for path, rates := range goodRates {
		for _, workload := range []Workload{TCPRR, TCPStream} {
			for subject, rate := range rates {
				for round := range 3 {
					slow := float64(1 + round)
					samples = append(samples, FlowSample{
						Path: path, Workload: workload, Subject: subject, Round: round,
						Seconds: 10 * slow, Units: uint64(rate * 10), Busy: 10 * slow,
						Threads: 8 * slow, Total: uint64(rate * 10), Carried: 0.99,
					})
				}
			}
		}
	}
	return samples
}

// goodTargets are about two of the lines.
func goodTargets(r *FlowReport) []Target {
	return []Target{
		r.row(Outside, TCPRR, Tracked).target(Outside, TCPRR, Tracked, Wire, 0.90),
		r.row(Local, TCPStream, Direct).target(Local, TCPStream, Direct, Wire, 0.97),
	}
}

func flowReport(samples []FlowSample) *FlowReport {
	opts := FlowOptions{
		Duration: 400 * time.Millisecond, Workloads: []Workload{TCPRR, TCPStream}, Placement: Together, Seed: 1,
		Subjects: []Subject{Wire, WireAgain, Bridge, Tracked, Direct, Kernel},
	}
	return newFlowReport(opts, []Subject{Wire, Bridge}, samples, goodTargets)
}

func TestFlowRatiosAreOfPairs(t *testing.T) {
	r := flowReport(goodFlows())
	row := r.row(Outside, TCPRR, Tracked)
	if row == nil {
		t.Fatal("no row of tracked, off node")
	}
	near := func(e *Estimate, want float64) bool {
		return e != nil && e.Count == 3 && math.Abs(e.Low-want) < 1e-9 && math.Abs(e.High-want) < 1e-9
	}
	if !near(row.RateTo[Wire], 0.92) || !near(row.RateTo[Bridge], 920./850) || !near(row.CostTo[Bridge], 850./920) {
		t.Errorf("ratios of rate to %v, of cpu to %v", row.RateTo, row.CostTo)
	}
	if !near(row.OwnTo[Wire], 1000./920) || math.Abs(row.Own-16./9200) > 1e-9 {
		t.Errorf("own cpu %v, to %v", row.Own, row.OwnTo)
	}
	if math.Abs(row.Rate-460) > 1e-9 || row.Rounds != 3 || row.Invalid != 0 || row.Carried != 0.99 {
		t.Errorf("row %+v", row)
	}
	if self := r.row(Local, TCPRR, Wire); self.RateTo[Wire] != nil {
		t.Errorf("the wire is compared with itself: %v", self.RateTo[Wire])
	}
}

func TestRowsAreInTheOrderOfTheOptions(t *testing.T) {
	r := flowReport(goodFlows())
	var got []string
	for _, row := range r.Rows[:8] {
		got = append(got, fmt.Sprint(row.Path, " ", row.Workload, " ", row.Subject))
	}
	want := "same node TCP_RR wire, same node TCP_RR wire again, same node TCP_RR bridge, same node TCP_RR tracked, " +
		"same node TCP_RR direct, same node TCP_RR kernel, same node TCP_STREAM wire, same node TCP_STREAM wire again"
	if strings.Join(got, ", ") != want {
		t.Errorf("rows %q", got)
	}
}

func TestEachFlowTargetCanBeMissed(t *testing.T) {
	if missed := flowReport(goodFlows()).Missed(); len(missed) > 0 {
		t.Errorf("missed %v", missed)
	}
	for _, c := range []struct {
		path     Path
		workload Workload
		subject  Subject
		missed   string
	}{
		{Outside, TCPRR, Tracked, "off node TCP_RR, tracked rate to wire at least 0.90"},
		{Local, TCPStream, Direct, "same node TCP_STREAM, direct rate to wire at least 0.97"},
	} {
		samples := goodFlows()
		for i := range samples {
			if s := &samples[i]; s.Path == c.path && s.Workload == c.workload && s.Subject == c.subject {
				s.Units = s.Units * 95 / 100
			}
		}
		if missed := flowReport(samples).Missed(); len(missed) != 1 || missed[0].What != c.missed {
			t.Errorf("missed %v; want %q alone", missed, c.missed)
		}
	}
}

func TestInvalidRoundsDoNotCount(t *testing.T) {
	samples := goodFlows()
	invalid := 0
	for i := range samples {
		if s := &samples[i]; s.Path == Outside && s.Subject == Tracked && s.Workload == TCPRR && s.Round > 0 {
			s.Units, s.Invalid = s.Units*10, "went another way"
			invalid++
		}
	}
	r := flowReport(samples)
	row := r.row(Outside, TCPRR, Tracked)
	if e := row.RateTo[Wire]; row.Invalid != invalid || e.Count != 1 || math.Abs(e.Median-0.92) > 1e-9 {
		t.Errorf("%d invalid rounds: row %+v, %v", invalid, row, e)
	}
	// With so few that count, the target is not met.
	if missed := r.Missed(); len(missed) != 1 || !strings.Contains(missed[0].Got, "2 of 3 rounds invalid") {
		t.Errorf("missed %v", missed)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "off node TCP_RR of tracked, 2 of 3 rounds: went another way") {
		t.Errorf("report does not say what was wrong: %v\n%s", err, text.String())
	}
}

func TestAnEmptyRunMeetsNoTarget(t *testing.T) {
	r := flowReport(nil)
	if len(r.Missed()) != len(r.Targets) {
		t.Errorf("an empty run has met targets: %v", r.Targets)
	}
	if err := r.WriteJSON(&bytes.Buffer{}); err != nil {
		t.Error(err)
	}
}

func TestTaxIsJudgedByTransactions(t *testing.T) {
	run := func(with uint64) *FlowReport {
		var samples []FlowSample
		for _, path := range []Path{Host, Forwarded} {
			for subject, units := range map[Subject]uint64{WithPrograms: with, Without: 1000} {
				samples = append(samples, FlowSample{Path: path, Workload: TCPRR, Subject: subject, Seconds: 1, Units: units, Busy: 1, Threads: 1, Total: units})
			}
		}
		return newFlowReport(DefaultTaxOptions(), []Subject{Without}, samples, taxTargets)
	}
	if missed := run(985).Missed(); len(missed) != 0 {
		t.Errorf("a tax of 1.5 %% misses %v", missed)
	}
	if missed := run(970).Missed(); len(missed) != 2 {
		t.Errorf("a tax of 3 %% misses %v; want both paths", missed)
	}
}

func TestFlowReportIsWrittenWhole(t *testing.T) {
	r := flowReport(goodFlows())
	var text, object, table bytes.Buffer
	if err := errors.Join(r.WriteText(&text), r.WriteJSON(&object), r.WriteCSV(&table)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"off node, TCP_STREAM", "0.920 [0.920, 0.920]", "99.0 %", "wire again", "ends on CPUs: together"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("text lacks %q:\n%s", want, text.String())
		}
	}
	var back FlowReport
	if err := json.Unmarshal(object.Bytes(), &back); err != nil || len(back.Samples) != len(r.Samples) || back.Duration != 400*time.Millisecond {
		t.Errorf("json: %v, %d samples", err, len(back.Samples))
	}
	lines, err := csv.NewReader(&table).ReadAll()
	if err != nil || len(lines) != len(r.Samples)+1 {
		t.Errorf("csv: %d lines, %v", len(lines), err)
	}
}

func TestPlacement(t *testing.T) {
	for _, c := range []struct {
		placement      Placement
		allowed        []int
		client, server int
		wrong          bool
	}{
		{Together, []int{2, 3, 5}, 2, 2, false},
		{Apart, []int{2, 3, 5}, 2, 5, false},
		{Apart, []int{4}, 4, 4, false},
		{Free, []int{2, 3}, -1, -1, false},
		{"nowhere", []int{0}, 0, 0, true},
	} {
		client, server, err := c.placement.cpus(c.allowed)
		if client != c.client || server != c.server || (err != nil) != c.wrong {
			t.Errorf("%s of %v: %d, %d, %v", c.placement, c.allowed, client, server, err)
		}
	}
	if cpus, err := allowedCPUs(); err != nil || len(cpus) == 0 {
		t.Errorf("allowed CPUs %v, %v", cpus, err)
	}
}
