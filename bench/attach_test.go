// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bench"
	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// TestMain makes the test binary an agent of its own tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == bench.AgentCommand {
		if err := bench.ServeAgent(os.Stdin, os.Stdout); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// smallRun is every phase of a run at a size for tests. What depends on the
// machine's speed is not for a test to judge.
func smallRun(t *testing.T) bench.Options {
	t.Helper()
	testutil.RequireRoot(t)
	testutil.RequireProgram(t, "iptables")
	opts := bench.DefaultOptions()
	opts.Plugins = reference.Plugins(t)
	opts.Zipline = reference.BuildZipline(t)
	opts.Rounds, opts.MainSize, opts.Sizes, opts.ReferenceMax = 4, 3, []int{1, 3, 5}, 3
	opts.Burst, opts.Width, opts.Bursts = 6, 3, 1
	return opts
}

func TestRunMeasuresEveryPhase(t *testing.T) {
	report, err := bench.Attach(t.Context(), smallRun(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Rows) != 6 || len(report.Bursts) != 2 {
		t.Errorf("%d rows, %d bursts; want 6 and 2", len(report.Rows), len(report.Bursts))
	}
	for _, row := range report.Rows {
		times := row.Times[bench.Zipline]
		reference := row.Endpoints <= 3
		_, ptp := row.Times[bench.PTP]
		rounds := 3
		if row.Endpoints == 3 {
			rounds = 4
		}
		if times.P50 <= 0 || times.CPU <= 0 || times.Count != rounds ||
			row.ToControl == nil || (row.ToBridge != nil) != reference || ptp != reference {
			t.Errorf("row is incomplete: %+v", row)
		}
	}
	checkMaps(t, report.Maps)
	var text bytes.Buffer
	if err := report.WriteText(&text); err != nil {
		t.Error(err)
	}
	t.Log("\n" + text.String())
}

// checkMaps wants every map with a size, and the endpoints to take more in a node
// that has more.
func checkMaps(t *testing.T, maps []bench.MapMemory) {
	t.Helper()
	bytes := map[string]map[int]uint64{}
	for _, m := range maps {
		if bytes[m.Name] == nil {
			bytes[m.Name] = map[int]uint64{}
		}
		bytes[m.Name][m.Endpoints] = m.Bytes
	}
	for _, name := range []string{"endpoints", "devices", "programs"} {
		of := bytes[name]
		if len(of) != 3 || of[1] == 0 || name == "programs" && of[5] != of[1] {
			t.Errorf("memory of %s: %v", name, of)
		}
	}
	// Exact from Linux 6.4 on; before, it is what there can be at most.
	if of := bytes["endpoints"]; of[5] < of[1] {
		t.Errorf("endpoints take %v bytes", of)
	}
}

func TestPluginNeedsNoOtherProgram(t *testing.T) {
	report, err := bench.Attach(t.Context(), smallRun(t))
	if err != nil {
		t.Fatal(err)
	}
	facts := report.Facts
	if got := facts.Processes[bench.Zipline]; got != 1 {
		t.Errorf("ADD started %d processes; want the plugin alone", got)
	}
	if sprung := facts.Sprung[bench.Zipline]; len(sprung) > 0 {
		t.Errorf("ADD and DEL executed %q", sprung)
	}
	// The same instruments see what the reference does.
	if facts.Processes[bench.Bridge] < 5 || len(facts.Sprung[bench.Bridge]) == 0 {
		t.Errorf("bridge: %d processes, %q", facts.Processes[bench.Bridge], facts.Sprung[bench.Bridge])
	}
	if facts.BinarySize >= 12e6 || report.MaxRSS >= 40e6 || report.MaxRSS < 1e6 {
		t.Errorf("binary %d bytes, peak memory %d bytes; want less than 12 and 40 MB", facts.BinarySize, report.MaxRSS)
	}
}

func TestRunEndsWithThePluginsError(t *testing.T) {
	opts := smallRun(t)
	opts.Zipline = filepath.Join(t.TempDir(), "zipline")
	script := "#!/bin/sh\necho '{\"code\":111,\"msg\":\"no luck\"}'\nexit 1\n"
	if err := os.WriteFile(opts.Zipline, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := bench.Attach(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("run of a plugin that fails: %v; want its message", err)
	}
}

func TestInterruptedRunReturnsSoon(t *testing.T) {
	opts := smallRun(t)
	opts.Rounds = 1000
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	if _, err := bench.Attach(ctx, opts); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted run: %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("interrupted run ended after %v", took)
	}
}
