// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bench"
	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// smallComparison is a run of some cases at a size for tests, without its other parts.
func smallComparison(t *testing.T, subjects ...bench.Subject) bench.RunOptions {
	t.Helper()
	testutil.RequireRoot(t)
	for _, program := range []string{"iptables", "nft"} {
		testutil.RequireProgram(t, program)
	}
	opts, err := bench.QuickRunOptions()
	if err != nil {
		t.Fatal(err)
	}
	opts.Plugins, opts.Zipline = reference.Plugins(t), reference.BuildZipline(t)
	opts.Subjects, opts.Paths, opts.Workloads = subjects, []bench.Path{bench.Local}, []bench.Workload{bench.TCPRR}
	opts.Rounds, opts.Warmup, opts.Duration = 2, 40*time.Millisecond, 60*time.Millisecond
	opts.Attach, opts.Growth, opts.Crosschecks = nil, bench.Growth{}, 0
	return opts
}

// addCase adds a case by its text.
func addCase(t *testing.T, opts *bench.RunOptions, text string) {
	t.Helper()
	c, err := bench.ParseCase([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	opts.Cases = append(opts.Cases, c)
	opts.Subjects = append(opts.Subjects, c.Name)
}

// count returns how many samples of a subject there are at a number of endpoints.
func count(r *bench.Results, subject bench.Subject, endpoints int) int {
	n := 0
	for _, s := range r.Flows {
		if s.Subject == subject && s.Endpoints == endpoints && s.Units > 0 {
			n++
		}
	}
	return n
}

func TestRunGoesOnWithoutWhatFails(t *testing.T) {
	opts := smallComparison(t, bench.Wire, bench.Direct)
	opts.Paths, opts.Crosschecks = []bench.Path{bench.Local, bench.Service}, 1
	addCase(t, &opts, `{"name":"gone","title":"gone","kind":"plugin","network":{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"gone"}]}}`)
	// Without br_netfilter the replies of a neighbour miss the translation.
	addCase(t, &opts, `{"name":"lost","title":"lost","kind":"plugin","paths":["service"],"network":{"cniVersion":"1.0.0","name":"n","plugins":[
		{"type":"bridge","bridge":"b0","isGateway":true,"ipMasq":true,"ipMasqBackend":"iptables",
		 "ipam":{"type":"host-local","subnet":"10.64.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}]}}`)
	results, err := bench.Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	// Two rounds on the same node, of which the first has the service, too.
	for subject, want := range map[bench.Subject]int{bench.Wire: 3, bench.Direct: 3, "gone": 0, "lost": 0} {
		if got := count(results, subject, 0); got != want {
			t.Errorf("%d samples of %s; want %d", got, subject, want)
		}
	}
	var failures []string
	for _, f := range results.Failures {
		failures = append(failures, string(f.Subject)+": "+f.What+": "+f.Why)
	}
	if len(failures) != 2 || !strings.Contains(failures[0], `gone: build the network: find plugin: failed to find plugin "gone"`) ||
		!strings.HasPrefix(failures[1], "lost: service TCP_RR: ") {
		t.Errorf("failures %q", failures)
	}
	if results.Incomplete != "" || len(results.Cases) != 4 || results.Machine.Kernel == "" || results.Version != bench.ResultsVersion {
		t.Errorf("results %+v", results)
	}
	if len(results.Crosschecks) != 2 {
		t.Errorf("cross-checks %+v", results.Crosschecks)
	}
	for _, s := range results.Flows {
		if s.Invalid != "" || s.Connections != 1 {
			t.Errorf("sample %+v", s)
		}
	}
}

func TestRunMeasuresNetworksThatGrow(t *testing.T) {
	opts := smallComparison(t, bench.Bridge, bench.Tracked, bench.Kernel)
	opts.Rounds = 1
	opts.Growth = bench.Growth{Sizes: []int{2, 5}, Rounds: 2, Workloads: []bench.Workload{bench.TCPCRR, bench.TCPRR}}
	results, err := bench.Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []bench.Subject{bench.Bridge, bench.Tracked} {
		if one, two, five := count(results, subject, 1), count(results, subject, 2), count(results, subject, 5); one != 8 || two != 4 || five != 4 {
			t.Errorf("%s: %d, %d, %d samples; want 8, 4, 4", subject, one, two, five)
		}
	}
	if count(results, bench.Kernel, 5) > 0 {
		t.Error("a case grows that does not say so")
	}
	// A round has each subject at one and at another size: they are pairs.
	rounds := map[int][]int{}
	for _, s := range results.Flows {
		if s.Subject == bench.Bridge && s.Workload == bench.TCPCRR && s.Endpoints > 0 {
			rounds[s.Round] = append(rounds[s.Round], s.Endpoints)
		}
	}
	for round, sizes := range rounds {
		if len(sizes) != 2 || !slices.Contains(sizes, 1) {
			t.Errorf("round %d has %v endpoints", round, sizes)
		}
	}
	if len(rounds) != 4 {
		t.Errorf("rounds %v", rounds)
	}
}

func TestInterruptedComparisonKeepsWhatItHas(t *testing.T) {
	opts := smallComparison(t, bench.Wire)
	opts.Rounds, opts.Least = 0, 1000
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	start := time.Now()
	results, err := bench.Run(ctx, opts)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("interrupted run ended after %v", took)
	}
	if err != nil || results == nil || count(results, bench.Wire, 0) == 0 || len(results.Failures) > 0 {
		t.Fatalf("interrupted run: %+v, %v", results, err)
	}
	if results.Incomplete != "connections: context deadline exceeded" {
		t.Errorf("incomplete: %q", results.Incomplete)
	}
}

func TestRunThatIsOverBeforeItBeginsSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	tired := errors.New("tired")
	cancel(tired)
	if results, err := bench.Run(ctx, smallComparison(t, bench.Wire)); results != nil || !errors.Is(err, tired) {
		t.Errorf("run: %+v, %v", results, err)
	}
}

func TestInterruptedControlPlaneKeepsTheConnections(t *testing.T) {
	opts := smallComparison(t, bench.Wire)
	attach := smallRun(t)
	attach.Rounds = 1000
	opts.Attach = &attach
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opts.Progress = after{"control plane", func() { time.AfterFunc(2*time.Second, cancel) }}
	results, err := bench.Run(ctx, opts)
	if err != nil || results == nil || count(results, bench.Wire, 0) != 2 || results.Incomplete != "control plane: context canceled" {
		t.Fatalf("interrupted run: %+v, %v", results, err)
	}
}

// after is a writer that calls a function when it is told some text.
type after struct {
	text string
	f    func()
}

func (a after) Write(line []byte) (int, error) {
	if strings.Contains(string(line), a.text) {
		a.f()
	}
	return len(line), nil
}

func TestRunHasTheControlPlaneLessWhoIsTooSlow(t *testing.T) {
	opts := smallComparison(t, bench.Wire)
	attach := smallRun(t)
	attach.Patience = time.Nanosecond
	opts.Attach = &attach
	results, err := bench.Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(results)
	if err != nil {
		t.Fatal(err)
	}
	var back bench.Results
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Attach) == 0 || back.Facts.Processes[bench.Zipline] != 1 || len(back.Flows) != len(results.Flows) || len(back.Cases) != 1 {
		t.Errorf("results of the control plane: %d samples, %+v", len(back.Attach), back.Facts)
	}
	largest := map[bench.Subject]int{}
	for _, s := range back.Attach {
		if s.Phase == bench.PhasePaired {
			largest[s.Subject] = max(largest[s.Subject], s.Endpoints)
		}
	}
	want := map[bench.Subject]int{bench.Zipline: 5, bench.Control: 5, bench.Bridge: 1, bench.PTP: 1}
	if !maps.Equal(largest, want) || len(back.Failures) != 2 || len(back.Maps) == 0 {
		t.Errorf("sizes %v, failures %+v, %d maps; want sizes %v and a failure of each that is slow", largest, back.Failures, len(back.Maps), want)
	}
}

func TestRunRefusesWhatItDoesNotKnow(t *testing.T) {
	for want, change := range map[string]func(*bench.RunOptions){
		`"TCP_XYZ" is not one of`:   func(o *bench.RunOptions) { o.Workloads = []bench.Workload{"TCP_XYZ"} },
		`no case "flannel"`:         func(o *bench.RunOptions) { o.Subjects = []bench.Subject{"flannel"} },
		"does not grow":             func(o *bench.RunOptions) { o.Growth.Sizes = []int{1, 10} },
		"placement":                 func(o *bench.RunOptions) { o.Placement = "nowhere" },
		"no network could be built": func(o *bench.RunOptions) { o.Plugins, o.Subjects = t.TempDir(), []bench.Subject{bench.Bridge} },
	} {
		opts := smallComparison(t, bench.Wire)
		change(&opts)
		if results, err := bench.Run(t.Context(), opts); results != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run: %v; want %q", err, want)
		}
	}
}
