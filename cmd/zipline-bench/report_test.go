// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bench"
)

// writeResults writes a run in which direct is so many times as fast as the wire.
func writeResults(t *testing.T, direct float64) string {
	t.Helper()
	r := &bench.Results{
		Version: bench.ResultsVersion, Duration: time.Second, Placement: bench.Together, Seed: 1,
		Cases: []bench.Case{
			{Name: bench.Wire, Title: "wire", Kind: bench.KindWire}, {Name: bench.WireAgain, Title: "wire", Kind: bench.KindWire},
			{Name: bench.Bridge, Title: "bridge", Kind: bench.KindPlugin}, {Name: bench.Direct, Title: "direct", Kind: bench.KindPlugin},
		},
	}
	for round := range 10 {
		for subject, rate := range map[bench.Subject]float64{bench.Wire: 1, bench.WireAgain: 1, bench.Bridge: 0.7, bench.Direct: direct} {
			scatter := 1 + 0.01*float64((round+len(subject))%3)
			r.Flows = append(r.Flows, bench.FlowSample{
				Path: bench.Local, Workload: bench.TCPRR, Subject: subject, Connections: 1, Round: round,
				Seconds: 1, Units: uint64(1e5 * rate * scatter), Total: uint64(1e5 * rate * scatter), Busy: 1, Threads: 1,
			})
		}
	}
	name := filepath.Join(t.TempDir(), "results.json")
	if err := writeFile(name, r.WriteJSON); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReportIsWrittenWhereItIsAskedFor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	var stdout bytes.Buffer
	if err := run([]string{"report", writeResults(t, 1), "-out", dir}, &stdout, io.Discard); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(dir, "report.md")
	if strings.TrimSpace(stdout.String()) != page {
		t.Errorf("says %q; want the page's name", stdout.String())
	}
	for _, name := range []string{page, filepath.Join(dir, "ratios-to-bridge-same-node.svg"), filepath.Join(dir, "rates-same-node.png")} {
		if info, err := os.Stat(name); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCompareChecksForRegressions(t *testing.T) {
	before, after := writeResults(t, 1), writeResults(t, 0.8)
	for _, c := range []struct {
		args []string
		fail bool
		want string
	}{
		{[]string{before, before, "-check"}, false, "0 regressed, 0 improved, of 4"},
		{[]string{before, after}, false, "2 regressed, 0 improved, of 4"},
		{[]string{"-check", before, after}, true, "REGRESSED"},
		{[]string{after, "-check", before}, false, "0 regressed, 2 improved"},
		{[]string{before, after, "-check", "-cases", "bridge", "-all"}, false, "0 regressed, 0 improved, of 2"},
	} {
		var stdout bytes.Buffer
		err := run(append([]string{"compare"}, c.args...), &stdout, io.Discard)
		if errors.Is(err, errRegressed) != c.fail || err != nil && !c.fail {
			t.Errorf("compare %q: %v", c.args, err)
		}
		if !strings.Contains(stdout.String(), c.want) {
			t.Errorf("compare %q: no %q in\n%s", c.args, c.want, stdout.String())
		}
	}
}

func TestTableGoesToStdoutOrIntoAPage(t *testing.T) {
	results := writeResults(t, 1)
	var stdout bytes.Buffer
	if err := run([]string{"table", results}, &stdout, io.Discard); err != nil || !strings.Contains(stdout.String(), "| same node TCP_RR |") {
		t.Errorf("%v, table\n%s", err, stdout.String())
	}
	readme := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(readme, []byte("<!-- zipline-bench table -->\n<!-- end of zipline-bench table -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"table", results, "-readme", readme}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(readme); err != nil || !strings.Contains(string(text), stdout.String()) {
		t.Errorf("%v, page\n%s", err, text)
	}
}

func TestFilesOfResultsAreCounted(t *testing.T) {
	results := writeResults(t, 1)
	for _, args := range [][]string{
		{"report"}, {"report", results, results}, {"compare", results}, {"table", "-no-such-flag", results}, {"compare", results, results, results},
	} {
		var stderr bytes.Buffer
		if err := run(args, io.Discard, &stderr); !errors.Is(err, errUsage) || !strings.Contains(stderr.String(), "usage: zipline-bench "+args[0]) {
			t.Errorf("run %q: %v, %s", args, err, stderr.String())
		}
	}
	if err := run([]string{"report", "no-such-file.json"}, io.Discard, io.Discard); err == nil || errors.Is(err, errUsage) {
		t.Errorf("a file that is not there: %v", err)
	}
}
