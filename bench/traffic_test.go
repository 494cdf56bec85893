// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bench"
	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// smallFlows is a run at a size for tests: whether packets go where they are said
// to go, not how fast.
func smallFlows(t *testing.T, opts bench.FlowOptions) bench.FlowOptions {
	t.Helper()
	testutil.RequireRoot(t)
	testutil.RequireProgram(t, "iptables")
	opts.Plugins = reference.Plugins(t)
	opts.Zipline = reference.BuildZipline(t)
	opts.Rounds, opts.Warmup, opts.Duration = 1, 50*time.Millisecond, 150*time.Millisecond
	return opts
}

func logReport(t *testing.T, r *bench.FlowReport) {
	t.Helper()
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Error(err)
	}
	t.Log("\n" + text.String())
}

func TestTrafficGoesTheWayThatItIsSaidToGo(t *testing.T) {
	opts := smallFlows(t, bench.DefaultTrafficOptions())
	opts.Workloads = []bench.Workload{bench.TCPRR, bench.UDPRR, bench.TCPStream, bench.TCPMaerts}
	report, err := bench.Traffic(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	logReport(t, report)
	if want := 2 * len(opts.Workloads) * len(opts.Subjects); len(report.Rows) != want {
		t.Errorf("%d rows; want %d", len(report.Rows), want)
	}
	for _, row := range report.Rows {
		if row.Invalid > 0 {
			t.Errorf("%s %s of %s: %s", row.Path, row.Workload, row.Subject, row.Complaint)
		}
		if row.Rate <= 0 || row.Rounds != 1 {
			t.Errorf("row is incomplete: %+v", row)
		}
		carrier := row.Subject == bench.Tracked || row.Subject == bench.Direct || row.Subject == bench.Zipline
		if carrier != (row.Carried >= 0.95) {
			t.Errorf("%s %s of %s: share of eBPF is %.3f", row.Path, row.Workload, row.Subject, row.Carried)
		}
	}
}

func TestTaxMeasuresEveryPath(t *testing.T) {
	opts := smallFlows(t, bench.DefaultTaxOptions())
	report, err := bench.Tax(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	logReport(t, report)
	if len(report.Rows) != 2*4*2 {
		t.Errorf("%d rows; want 2 paths, 4 workloads, 2 subjects", len(report.Rows))
	}
	for _, row := range report.Rows {
		if row.Invalid > 0 {
			t.Errorf("%s %s %s: %s", row.Path, row.Workload, row.Subject, row.Complaint)
		}
		if row.Rate <= 0 || row.Subject == bench.WithPrograms && row.RateTo[bench.Without] == nil {
			t.Errorf("row is incomplete: %+v", row)
		}
	}
}

func TestInterruptedTrafficReturnsSoon(t *testing.T) {
	opts := smallFlows(t, bench.DefaultTrafficOptions())
	opts.Rounds, opts.Subjects = 1000, []bench.Subject{bench.Wire}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	if _, err := bench.Traffic(ctx, opts); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted run: %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("interrupted run ended after %v", took)
	}
}

func TestTrafficRefusesWhatItDoesNotKnow(t *testing.T) {
	for want, change := range map[string]func(*bench.FlowOptions){
		"no such workload": func(o *bench.FlowOptions) { o.Workloads = []bench.Workload{"TCP_XYZ"} },
		"no such subject":  func(o *bench.FlowOptions) { o.Subjects = []bench.Subject{"ptp"} },
		"placement":        func(o *bench.FlowOptions) { o.Placement = "nowhere" },
	} {
		opts := smallFlows(t, bench.DefaultTrafficOptions())
		opts.Subjects = []bench.Subject{bench.Wire}
		change(&opts)
		if _, err := bench.Traffic(t.Context(), opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run returns %v; want %q", err, want)
		}
	}
}
