// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bytes"
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
