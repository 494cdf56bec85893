// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// What the tools print, with what does not matter left out.
const (
	iperf3Printed = `{"start": {"version": "iperf 3.12"}, "intervals": [], "end": {
		"sum_sent": {"bytes": 3, "bits_per_second": 24e9, "sender": true},
		"sum_received": {"bytes": 2, "bits_per_second": 16e9, "sender": true}}}`
	sockperfPrinted = "sockperf: Test ended\n" +
		"sockperf: [Valid Duration] RunTime=0.550 sec; SentMessages=30907; ReceivedMessages=30800\n" +
		"sockperf: \x1b[2;35m====> avg-rtt=21.470 (std-dev=105.216)\x1b[0m\n" +
		"sockperf: Summary: Round trip is 21.470 usec\n" +
		"sockperf: ---> percentile 75.000 =   18.547\n" +
		"sockperf: ---> percentile 50.000 =   17.866\n" +
		"sockperf: ---> percentile 25.000 =   17.656\n"
)

func TestFiguresOfOtherTools(t *testing.T) {
	for _, c := range []struct {
		name    string
		parse   func([]byte) (float64, error)
		printed string
		want    float64
	}{
		{"bits that have arrived", parseIperf3, iperf3Printed, 2e9},
		{"an error of iperf3", parseIperf3, `{"start": {}, "end": {}, "error": "unable to connect"}`, 0},
		{"no rate of iperf3", parseIperf3, `{"end": {}}`, 0},
		{"no JSON", parseIperf3, "iperf3: error\n", 0},
		{"median of round trips", parseSockperf, sockperfPrinted, 17.866e-6},
		{"median of halves", parseSockperf, strings.ReplaceAll(sockperfPrinted, "Round trip", "Latency"), 0},
		{"nothing that counts", parseSockperf, "sockperf: No valid observations found.\n", 0},
		{"no number", parseSockperf, strings.ReplaceAll(sockperfPrinted, "17.866", "17.8.66"), 0},
		{"no time", parseSockperf, strings.ReplaceAll(sockperfPrinted, "17.866", "0.000"), 0},
	} {
		got, err := c.parse([]byte(c.printed))
		if math.Abs(got-c.want) > 1e-9*c.want || (err != nil) != (c.want == 0) {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
	}
}

// Whatever a tool prints, there is a figure in it or an error.
func FuzzFigureOfATool(f *testing.F) {
	f.Add([]byte(iperf3Printed))
	f.Add([]byte(sockperfPrinted))
	f.Fuzz(func(t *testing.T, printed []byte) {
		for _, tool := range tools {
			value, err := tool.theirs(printed)
			if err == nil && !(value > 0) {
				t.Errorf("%s: %v of %q", tool.program, value, printed)
			}
		}
	})
}

func TestListenerIsFoundInTheTable(t *testing.T) {
	const table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:3B61 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n" +
		"   1: 0100007F:3B62 0100007F:3B61 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
	for port, want := range map[uint16]bool{15201: true, 15202: false, 15203: false} {
		if listens(table, port) != want {
			t.Errorf("listener at port %d: %v", port, !want)
		}
	}
}

// newWireRun is a run with one wire, and short measurements.
func newWireRun(t *testing.T) (*flowRun, lane) {
	t.Helper()
	testutil.RequireRoot(t)
	r, err := newFlowRun(t, FlowOptions{
		Warmup: 50 * time.Millisecond, Duration: 150 * time.Millisecond, Placement: Together, Progress: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newWire(t, Case{Name: Wire, Kind: KindWire})
	if err != nil {
		t.Fatal(err)
	}
	return r, s.lanes[Local]
}

func TestOtherToolsMeasureTheSamePath(t *testing.T) {
	for _, tool := range tools {
		testutil.RequireProgram(t, tool.program)
	}
	r, l := newWireRun(t)
	found, err := r.crosscheck(t.Context(), l, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 {
		t.Fatalf("%d crosschecks; want 2", len(found))
	}
	for _, c := range found {
		t.Logf("%+v", c)
		if len(c.Ours) != 2 || len(c.Theirs) != 2 || c.Note != "" || !strings.ContainsAny(c.Tool, "0123456789.") {
			t.Errorf("incomplete: %+v", c)
		}
		// How near they are depends on the machine; these are not of one kind if
		// they are further apart.
		if ratio := Median(c.Ours) / Median(c.Theirs); ratio < 0.1 || ratio > 10 {
			t.Errorf("ours to theirs is %.3f: %+v", ratio, c)
		}
	}
}

func TestToolThatIsMissingIsNoted(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	found, err := (&flowRun{}).crosscheck(t.Context(), lane{}, 2)
	if err != nil || len(found) != len(tools) {
		t.Fatalf("%d crosschecks, %v", len(found), err)
	}
	for _, c := range found {
		if c.Note == "" || c.Ours != nil || c.Theirs != nil {
			t.Errorf("a tool that is not there: %+v", c)
		}
	}
}

func TestToolThatFailsSaysSo(t *testing.T) {
	r, l := newWireRun(t)
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	said := func(script string) func(netip.AddrPort) []string {
		return func(netip.AddrPort) []string { return []string{"-c", script} }
	}
	listen := "exec iperf3 " + strings.Join(tools[0].server(netip.AddrPortFrom(l.to, toolPort)), " ")
	for want, scripts := range map[string][2]string{
		"no licence":  {"echo no licence; exit 1", "true"},
		"no route":    {listen, "echo no route; exit 1"},
		"nothing new": {listen, "echo nothing new"},
	} {
		broken := tool{program: "sh", server: said(scripts[0]), client: said(scripts[1]), theirs: parseIperf3}
		if _, err := r.theirs(l, broken, sh); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a tool that says %q: %v", want, err)
		}
	}
	if _, err := r.theirs(l, tools[0], "/no/such/program"); err == nil {
		t.Error("a program that is not there has measured something")
	}
}

// A tool that does not do what it should is no reason to end a run.
func TestCrosscheckGoesOnWithoutAToolThatFails(t *testing.T) {
	r, l := newWireRun(t)
	dir := t.TempDir()
	for _, tool := range tools {
		if err := os.WriteFile(filepath.Join(dir, tool.program), []byte("#!/bin/sh\necho out of order\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	found, err := r.crosscheck(t.Context(), l, 2)
	if err != nil || len(found) != len(tools) {
		t.Fatalf("%d crosschecks, %v", len(found), err)
	}
	for _, c := range found {
		if !strings.Contains(c.Note, "out of order") || len(c.Ours) != len(c.Theirs) {
			t.Errorf("crosscheck %+v", c)
		}
	}
	// Nor is it one that the way itself does not work. Who finds out is random.
	broken := l
	broken.front = netip.AddrPortFrom(l.to, 9)
	for range 5 {
		found, err := r.crosscheck(t.Context(), broken, 1)
		if err != nil || len(found) != len(tools) {
			t.Errorf("a way that does not work: %+v, %v", found, err)
		}
		for _, c := range found {
			if !strings.Contains(c.Note, "out of order") && !strings.Contains(c.Note, "refused") {
				t.Errorf("a way that does not work: %+v", c)
			}
		}
	}
	if _, err := r.measure(l, TCPRR, 1); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no more time")
	cancel(why)
	if _, err := r.crosscheck(ctx, l, 1); !errors.Is(err, why) {
		t.Errorf("interrupted: %v", err)
	}
}
