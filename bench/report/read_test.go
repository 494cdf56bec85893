// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/bench"
)

// tiny is results with one sample of each kind.
func tiny() *bench.Results {
	s := one(map[bench.Subject]float64{bench.Wire: 1, bench.WireAgain: 1, bench.Bridge: 0.7, bench.Direct: 1})
	s.rounds = 1
	r := s.results()
	r.Attach = []bench.Sample{{Phase: bench.PhasePaired, Subject: bench.Zipline, Verb: "ADD", Endpoints: 1, Seconds: 0.02}}
	r.Crosschecks = []bench.Crosscheck{{What: "TCP_STREAM", Tool: "iperf3", Unit: "bit/s", Ours: []float64{1}, Theirs: []float64{2}}}
	return r
}

func jsonOf(t testing.TB, r *bench.Results) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	want := tiny()
	name := filepath.Join(t.TempDir(), ResultsFile)
	if err := os.WriteFile(name, jsonOf(t, want), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Flows, want.Flows) || !reflect.DeepEqual(got.Machine, want.Machine) || !reflect.DeepEqual(got.Attach, want.Attach) {
		t.Error("results differ after a way through a file")
	}
}

func TestReadRefusesWhatCannotBe(t *testing.T) {
	for want, change := range map[string]func(*bench.Results){
		"version 2, where":           func(r *bench.Results) { r.Version = 2 },
		`subject "x" is none of`:     func(r *bench.Results) { r.Flows[0].Subject = "x" },
		`case "wire" is there`:       func(r *bench.Results) { r.Cases = append(r.Cases, r.Cases[0]) },
		"there twice in round 0":     func(r *bench.Results) { r.Flows = append(r.Flows, r.Flows[0]) },
		`"" is no name`:              func(r *bench.Results) { r.Cases[0].Name = "" },
		"not printable":              func(r *bench.Results) { r.Flows[0].Path = "same\nnode" },
		`" " is no name`:             func(r *bench.Results) { r.Flows[0].Workload = " " },
		"a count is negative":        func(r *bench.Results) { r.Flows[0].Endpoints = -1 },
		"a time can't be":            func(r *bench.Results) { r.Flows[0].Busy = -1 },
		"flow 1: a time can't be":    func(r *bench.Results) { r.Flows[1].Seconds = 1e-300 },
		"do not ascend, or":          func(r *bench.Results) { r.Flows[1].Latency.P999 = 1e300 },
		"crosscheck 0: a figure":     func(r *bench.Results) { r.Crosschecks[0].Ours[0] = -1 },
		"load or stolen share":       func(r *bench.Results) { r.Machine.Steal = 2 },
		"units in no time":           func(r *bench.Results) { r.Flows[0].Seconds = 0 },
		"carried by ebpf is 1.5":     func(r *bench.Results) { r.Flows[0].Carried = 1.5 },
		"do not ascend":              func(r *bench.Results) { r.Flows[0].Latency.P99 = 0 },
		"attach 0: a time":           func(r *bench.Results) { r.Attach[0].Seconds = -1 },
		`attach 0: "" is no name`:    func(r *bench.Results) { r.Attach[0].Verb = "" },
		`crosscheck 0: "" is no`:     func(r *bench.Results) { r.Crosschecks[0].Tool = "" },
		`is no name of 1 to 100`:     func(r *bench.Results) { r.Crosschecks[0].What = strings.Repeat("x", 101) },
		"name of case 1: \"\\t\" is": func(r *bench.Results) { r.Cases[1].Name = "\t" },
	} {
		r := tiny()
		change(r)
		if _, err := Read(bytes.NewReader(jsonOf(t, r))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want %q", err, want)
		}
	}
}

func TestReadIsStrictAboutTheText(t *testing.T) {
	text := string(jsonOf(t, tiny()))
	for want, text := range map[string]string{
		"unknown field":    strings.Replace(text, `"seed"`, `"sead"`, 1),
		"parse json":       text[:len(text)-10],
		"version 0":        "{}",
		"cannot unmarshal": strings.Replace(text, `"round": 0`, `"round": "first"`, 1),
		"after top-level":  text + "{}",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want %q", err, want)
		}
	}
	if _, err := ReadFile(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there is read")
	}
}

// Whatever is read can be reported, and so can be compared with itself.
func FuzzRead(f *testing.F) {
	f.Add(jsonOf(f, tiny()))
	f.Add([]byte(`{"version":1,"cases":[{"name":"wire"},{"name":"direct","kind":"plugin"}],"flows":[` +
		`{"path":"same node","workload":"TCP_CRR","subject":"direct","endpoints":1,"seconds":1,"units":9,"busy":1,"latency":{"p50":1,"p99":2,"p999":3}},` +
		`{"path":"same node","workload":"TCP_CRR","subject":"direct","endpoints":5,"seconds":1,"units":8,"busy":1,"latency":{"p50":1,"p99":2,"p999":3}}]}`))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		results, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		r := New(results)
		var out bytes.Buffer
		figures := r.figures()
		if err := r.writeMarkdown(&out, figures); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out.Bytes(), []byte("NaN")) || bytes.Contains(out.Bytes(), []byte("Inf")) {
			t.Errorf("a figure is no number:\n%s", out.Bytes())
		}
		for _, figure := range figures {
			if err := figure.writeSVG(&out); err != nil {
				t.Fatal(err)
			}
		}
		_ = r.Table()
		again, err := json.Marshal(results)
		if err != nil {
			t.Fatalf("write what was read: %v", err)
		}
		if _, err := Read(bytes.NewReader(again)); err != nil {
			t.Errorf("read what was written: %v", err)
		}
		if c, err := Compare(results, results); err == nil && len(c.Regressions()) > 0 {
			t.Errorf("worse than itself: %+v", c.Regressions())
		}
	})
}
