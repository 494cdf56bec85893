// SPDX-License-Identifier: Apache-2.0

// What disturbs a measurement and can be read from the kernel: how CPUs are
// clocked, what they are protected from, and who else wants them.

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Watch is a machine in the course of a run.
type Watch struct {
	machine Machine
	before  cpuTicks
}

// StartWatch describes the machine before a run of a plugin, the path of which may
// be empty.
func StartWatch(plugin string) *Watch {
	m := thisMachine()
	m.Zipline = pluginVersion(plugin)
	m.Virtual = hasCPUFlag(readText("/proc/cpuinfo"), "hypervisor")
	m.Governor = readText("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
	m.Turbo = turbo(readText("/sys/devices/system/cpu/intel_pstate/no_turbo"), readText("/sys/devices/system/cpu/cpufreq/boost"))
	m.Mitigations = mitigations("/sys/devices/system/cpu/vulnerabilities")
	m.LoadBefore = loadAverage(readText("/proc/loadavg"))
	return &Watch{m, parseCPUTicks(readText("/proc/stat"))}
}

// Machine describes it as it is now, with what has happened since the start.
func (w *Watch) Machine() Machine {
	m := w.machine
	m.LoadAfter = loadAverage(readText("/proc/loadavg"))
	m.Steal = parseCPUTicks(readText("/proc/stat")).stolenSince(w.before)
	return m
}

// QuietLoad is the load average, in CPUs, up to which a machine is quiet.
const QuietLoad = 0.5

// settle waits until the load average, asked again and again, says that the machine
// is quiet, but no longer than most.
func settle(ctx context.Context, most, again time.Duration, progress func(string, time.Duration), load func() float64) {
	for end := time.Now().Add(most); time.Now().Before(end) && ctx.Err() == nil; {
		now := load()
		if now <= QuietLoad {
			return
		}
		progress(fmt.Sprintf("waiting for the machine: load average %.1f", now), time.Until(end))
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

// readText returns a file without the space around its text, or "" where there is
// none: what a kernel does not show is not known.
func readText(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// pluginVersion returns the first line of what a plugin says when it is told nothing.
func pluginVersion(program string) string {
	if program == "" {
		return ""
	}
	cmd := exec.Command(program)
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(strings.TrimSpace(first), "CNI plugin ")
}

// hasCPUFlag says whether the first CPU in the text of /proc/cpuinfo has a flag.
func hasCPUFlag(cpuinfo, flag string) bool {
	return slices.Contains(strings.Fields(cpuField(cpuinfo, "flags")), flag)
}

// turbo reads Intel's file, where 1 is off, or everybody else's, where 1 is on.
func turbo(noTurbo, boost string) string {
	switch {
	case noTurbo == "0" || noTurbo == "" && boost == "1":
		return "on"
	case noTurbo == "1" || noTurbo == "" && boost == "0":
		return "off"
	default:
		return ""
	}
}

// mitigations returns the flaws of a directory with a file for each, but for those
// that the CPU does not have.
func mitigations(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if state := readText(filepath.Join(dir, e.Name())); state != "" && state != "Not affected" {
			found = append(found, e.Name()+": "+state)
		}
	}
	return found // as ReadDir sorts
}

// loadAverage returns that of the last minute from the text of /proc/loadavg.
func loadAverage(text string) float64 {
	first, _, _ := strings.Cut(text, " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return load
}

// cpuTicks are the fields of the first line of /proc/stat.
type cpuTicks []uint64

// stealField is the index of the time that went to other guests. The two after it
// are in others already.
const stealField = 7

func parseCPUTicks(stat string) cpuTicks {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) <= stealField+1 || fields[0] != "cpu" {
		return nil
	}
	ticks := make(cpuTicks, stealField+1)
	for i := range ticks {
		value, err := strconv.ParseUint(fields[i+1], 10, 64)
		if err != nil {
			return nil
		}
		ticks[i] = value
	}
	return ticks
}

// stolenSince returns the share of the ticks since an earlier time that were stolen.
func (t cpuTicks) stolenSince(before cpuTicks) float64 {
	if t == nil || before == nil {
		return 0
	}
	var all uint64
	for i := range t {
		all += t[i] - before[i]
	}
	if all == 0 {
		return 0
	}
	return float64(t[stealField]-before[stealField]) / float64(all)
}
