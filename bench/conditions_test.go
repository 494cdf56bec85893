// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestStolenShareIsOfTheTimeBetween(t *testing.T) {
	before := parseCPUTicks("cpu  100 0 100 800 0 0 0 10 5 5\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	after := parseCPUTicks("cpu  130 0 120 840 0 0 0 20 50 50\n")
	if got := after.stolenSince(before); got != 0.1 {
		t.Errorf("stolen %v; want 10 of 100 ticks", got)
	}
	if got := before.stolenSince(before); got != 0 {
		t.Errorf("stolen %v of no time", got)
	}
	for _, text := range []string{"", "cpu 1 2 3", "cpu a b c d e f g h i j", "intr 1 2 3 4 5 6 7 8 9 10"} {
		if got := parseCPUTicks(text); got != nil {
			t.Errorf("ticks of %q: %v", text, got)
		}
	}
}

func TestTurboIsReadFromEitherFile(t *testing.T) {
	for _, c := range []struct{ noTurbo, boost, want string }{
		{"0", "", "on"}, {"1", "", "off"}, {"", "1", "on"}, {"", "0", "off"}, {"", "", ""}, {"1", "1", "off"},
	} {
		if got := turbo(c.noTurbo, c.boost); got != c.want {
			t.Errorf("turbo of no_turbo %q and boost %q: %q; want %q", c.noTurbo, c.boost, got, c.want)
		}
	}
}

func TestMitigationsLeaveOutWhatTheCPUDoesNotHave(t *testing.T) {
	dir := t.TempDir()
	for name, state := range map[string]string{"meltdown": "Not affected\n", "spectre_v2": "Mitigation: Retpolines\n", "l1tf": "Vulnerable\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"l1tf: Vulnerable", "spectre_v2: Mitigation: Retpolines"}
	if got := mitigations(dir); !slices.Equal(got, want) {
		t.Errorf("mitigations %q; want %q", got, want)
	}
	if got := mitigations(filepath.Join(dir, "none")); got != nil {
		t.Errorf("mitigations of no directory: %q", got)
	}
}

func TestWordsOfTheKernelAreRead(t *testing.T) {
	if got := loadAverage("1.25 0.5 0.1 2/100 4711"); got != 1.25 {
		t.Errorf("load %v", got)
	}
	if got := loadAverage(""); got != 0 {
		t.Errorf("load of nothing %v", got)
	}
	if !hasCPUFlag("model name : x\nflags\t\t: fpu hypervisor lm\n", "hypervisor") || hasCPUFlag("flags : fpu hypervisors\n", "hypervisor") {
		t.Error("flags are not told apart")
	}
}

func TestWatchedMachineKnowsItsPlugin(t *testing.T) {
	plugin := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(plugin, []byte("#!/bin/sh\necho 'CNI plugin zipline v9' >&2\necho more >&2\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := StartWatch(plugin).Machine()
	if m.Zipline != "zipline v9" || m.Kernel == "" || m.Steal < 0 || m.Steal > 1 {
		t.Errorf("machine %+v", m)
	}
	if got := StartWatch("").Machine().Zipline; got != "" {
		t.Errorf("version of no plugin: %q", got)
	}
}

func TestARunWaitsForAQuietMachine(t *testing.T) {
	for _, c := range []struct {
		name  string
		most  time.Duration
		loads []float64
		asked int
	}{
		{"quiet", time.Hour, []float64{0.2}, 1},
		{"quiet soon", time.Hour, []float64{3, 1, 0.5}, 3},
		{"not asked to wait", 0, []float64{3}, 0},
	} {
		asked, said := 0, 0
		settle(t.Context(), c.most, 0, func(string, time.Duration) { said++ }, func() float64 {
			asked++
			return c.loads[asked-1]
		})
		if asked != c.asked || said != max(asked-1, 0) {
			t.Errorf("%s: asked %d times, said %d times that it waits; want %d and one less", c.name, asked, said, c.asked)
		}
	}
	silent, busy := func(string, time.Duration) {}, func() float64 { return 3 }
	begun := time.Now()
	settle(t.Context(), 20*time.Millisecond, time.Millisecond, silent, busy)
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	settle(interrupted, time.Hour, time.Hour, silent, busy)
	if took := time.Since(begun); took < 20*time.Millisecond || took > time.Minute {
		t.Errorf("a busy machine was waited for %s; want 20 ms", took)
	}
}
