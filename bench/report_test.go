// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// goodSamples are a run that meets every target: at each size three rounds of a
// machine that becomes slower from one to the next, which no ratio may show.
func goodSamples() []Sample {
	var samples []Sample
	add := func(phase Phase, verb string, endpoints, round int, times map[Subject]float64) {
		for subject, seconds := range times {
			samples = append(samples, Sample{
				Phase: phase, Subject: subject, Verb: verb, Endpoints: endpoints, Round: round,
				Seconds: seconds * float64(1+round), CPU: seconds / 2, MaxRSS: 20e6,
			})
		}
	}
	add(PhaseFirst, "ADD", 0, 0, map[Subject]float64{Zipline: 0.05, Bridge: 0.04, Control: 0.05})
	samples[0].MaxRSS, samples[1].MaxRSS, samples[2].MaxRSS = 90e6, 90e6, 90e6 // loads programs
	for round := range 3 {
		for _, verb := range []string{"ADD", "DEL"} {
			add(PhaseParallel, verb, 200, round, map[Subject]float64{Zipline: 1, Bridge: 8})
			add(PhasePaired, verb, 200, round, map[Subject]float64{Zipline: 0.01, Bridge: 0.08, Control: 0.01})
			add(PhasePaired, verb, 1000, round, map[Subject]float64{Zipline: 0.012, Bridge: 0.3, Control: 0.01})
			add(PhasePaired, verb, 2000, round, map[Subject]float64{Zipline: 0.012, Control: 0.01})
		}
	}
	return samples
}

func goodFacts() Facts {
	return Facts{
		Processes:  map[Subject]int{Zipline: 1, Bridge: 12},
		Programs:   map[Subject]int{Zipline: 1, Bridge: 11},
		Sprung:     map[Subject][]string{Bridge: {"iptables"}},
		BinarySize: 9e6, FloorRSS: 13e6,
		KernelMemory: map[Subject]float64{Zipline: 45e3},
	}
}

func TestRatiosAreOfPairs(t *testing.T) {
	r := newReport(DefaultOptions(), goodSamples(), goodFacts())
	want := Estimate{Median: 0.125, Low: 0.125, High: 0.125, Count: 3}
	if got := r.row("ADD", 200).ToBridge; got == nil || *got != want {
		t.Errorf("ADD at 200 to bridge: %v; want %v", got, &want)
	}
	if got := r.row("ADD", 2000).ToBridge; got != nil {
		t.Errorf("ADD at 2000 to a bridge that took no part: %v", got)
	}
	if got := r.row("DEL", 200).Times[Bridge]; got.P50 != 0.16 || got.Count != 3 {
		t.Errorf("DEL of bridge at 200: %+v; want a median of 160 ms of 3", got)
	}
}

func TestGoodRunMeetsEveryTarget(t *testing.T) {
	r := newReport(DefaultOptions(), goodSamples(), goodFacts())
	if missed := r.Missed(); len(missed) > 0 || len(r.Targets) != 9 {
		t.Errorf("%d targets, missed %v; want 9 met", len(r.Targets), missed)
	}
}

func TestEachTargetCanBeMissedAlone(t *testing.T) {
	slower := func(factor float64, f func(Sample) bool) func([]Sample, *Facts) {
		return func(samples []Sample, _ *Facts) {
			for i := range samples {
				if f(samples[i]) {
					samples[i].Seconds *= factor
				}
			}
		}
	}
	paired := func(verb string, size int) func(Sample) bool {
		return func(s Sample) bool {
			return s.Phase == PhasePaired && s.Subject == Zipline && s.Verb == verb && s.Endpoints == size
		}
	}
	for _, c := range []struct {
		missed string
		spoil  func([]Sample, *Facts)
	}{
		{"ADD at 200", slower(2.1, paired("ADD", 200))},
		{"DEL at 200", slower(1.7, paired("DEL", 200))},
		{"200 ADDs", slower(4.1, func(s Sample) bool { return s.Phase == PhaseParallel && s.Subject == Zipline })},
		{"ADD at 1000", slower(1.1, paired("ADD", 1000))},
		{"2000 endpoints", func(samples []Sample, _ *Facts) {
			for i := range samples {
				samples[i].Endpoints = min(samples[i].Endpoints, 1000)
			}
		}},
		{"processes", func(_ []Sample, f *Facts) { f.Processes[Zipline] = 4 }},
		{"no forbidden", func(_ []Sample, f *Facts) { f.Sprung[Zipline] = []string{"nft -f -"} }},
		{"binary", func(_ []Sample, f *Facts) { f.BinarySize = 12e6 }},
		{"peak memory", func(samples []Sample, _ *Facts) { spoilMemory(samples) }},
	} {
		samples, facts := goodSamples(), goodFacts()
		c.spoil(samples, &facts)
		missed := newReport(DefaultOptions(), samples, facts).Missed()
		if len(missed) != 1 || !strings.HasPrefix(missed[0].What, c.missed) {
			t.Errorf("missed %v; want only %q", missed, c.missed)
		}
	}
}

// spoilMemory gives every ADD of the plugin under test too much memory.
func spoilMemory(samples []Sample) {
	for i := range samples {
		if samples[i].Subject == Zipline && samples[i].Verb == "ADD" {
			samples[i].MaxRSS = 41e6
		}
	}
}

func TestWhatWasNotMeasuredIsMissed(t *testing.T) {
	r := newReport(DefaultOptions(), nil, Facts{})
	if missed := r.Missed(); len(missed) != len(r.Targets) {
		t.Errorf("missed %d of %d targets of a run without samples", len(missed), len(r.Targets))
	}
}

func TestTextNamesMachineTablesAndVerdicts(t *testing.T) {
	var out bytes.Buffer
	facts := goodFacts()
	facts.BinarySize = 13e6
	r := newReport(DefaultOptions(), goodSamples(), facts)
	r.Maps = []MapMemory{
		{Endpoints: 1, Name: "endpoints", Bytes: 1e6}, {Endpoints: 1, Name: programsMemory, Bytes: 2e5},
		{Endpoints: 4000, Name: "endpoints", Bytes: 15e5},
	}
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"kernel ", " CPUs (", "bridge v",
		" 200 ADD 3 20.00 29.80 5.00 160.00 238.40 40.00 - - - 0.125 [0.125, 0.125] 1.000 ",
		" 2000 DEL 3 24.00 35.76 6.00 - - - - - - - 1.200 [1.200, 1.200]",
		"zipline: first ADD on a fresh node 50 ms; one ADD starts 1 processes (1 programs); ADD and DEL executed 0 forbidden programs; " +
			"the kernel's memory grew by 45 kB per endpoint",
		"bridge: first ADD on a fresh node 40 ms; one ADD starts 12 processes (11 programs); ADD and DEL executed 1 forbidden programs ",
		"maps and programs take 1.20 MB with 1, 1.50 MB with 4000 endpoints",
		"MISSED binary under 12 MB", "met peak memory of an ADD under 40 MB 20.0 MB",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestJSONAndCSVHoldEverySample(t *testing.T) {
	r := newReport(DefaultOptions(), goodSamples(), goodFacts())
	var text bytes.Buffer
	if err := r.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(back.Samples, r.Samples) {
		t.Error("samples differ after a way through JSON")
	}
	var lines bytes.Buffer
	if err := r.WriteCSV(&lines); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&lines).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(r.Samples)+1 {
		t.Errorf("%d lines for %d samples", len(rows), len(r.Samples))
	}
}

func TestCPUModelIsTheFirstOne(t *testing.T) {
	if got := cpuField("processor\t: 0\nmodel name\t: Some CPU: fast\n\nmodel name\t: other\n", "model name"); got != "Some CPU: fast" {
		t.Errorf("model %q", got)
	}
	if got := cpuField("Features : fp asimd\n", "model name"); got != "" {
		t.Errorf("model %q; want none", got)
	}
}
