// SPDX-License-Identifier: Apache-2.0

// What the project has promised of ADD and DEL.

package bench

import (
	"fmt"
	"slices"
	"strings"
)

// The project's targets.
const (
	maxAddToBridge   = 0.25
	maxDelToBridge   = 0.20
	maxBurstToBridge = 0.50
	maxGrowth        = 1.3
	growthSize       = 1000
	greatestSize     = 2000
	maxBinary        = 12e6
	maxMemory        = 40e6
	maxProcesses     = 3
)

// Target is a figure that has to stay on one side of a limit.
type Target struct {
	What string `json:"what"`
	// Got is what was measured, in words.
	Got string `json:"got"`
	Met bool   `json:"met"`
}

// judge compares a report with the targets. One that the run's options left out
// is missed: what was not measured is not known.
func judge(r *Report, opts Options) []Target {
	add, del := r.row("ADD", opts.MainSize), r.row("DEL", opts.MainSize)
	grown := r.row("ADD", growthSize)
	var burst *Row
	if i := slices.IndexFunc(r.Bursts, func(b Row) bool { return b.Verb == "ADD" }); i >= 0 {
		burst = &r.Bursts[i]
	}
	processes := r.Facts.Processes[Zipline]
	sprung := r.Facts.Sprung[Zipline]
	return []Target{
		ratioTarget(fmt.Sprintf("ADD at %d endpoints, to bridge", opts.MainSize), toBridge(add), maxAddToBridge),
		ratioTarget(fmt.Sprintf("DEL at %d endpoints, to bridge", opts.MainSize), toBridge(del), maxDelToBridge),
		ratioTarget(fmt.Sprintf("%d ADDs, %d at a time, to bridge", opts.Burst, opts.Width), toBridge(burst), maxBurstToBridge),
		ratioTarget(fmt.Sprintf("ADD at %d endpoints, to %d", growthSize, ControlEndpoints), toControl(grown), maxGrowth),
		{
			fmt.Sprintf("%d endpoints attach", greatestSize), fmt.Sprint(largest(r.Rows)),
			largest(r.Rows) >= greatestSize,
		},
		{
			fmt.Sprintf("processes per ADD at most %d", maxProcesses), count(processes),
			processes > 0 && processes <= maxProcesses,
		},
		// The traps count only if they caught the one that they have to catch.
		{
			"no forbidden program executed", strings.Join(append([]string{fmt.Sprint(len(sprung))}, sprung...), " "),
			len(r.Facts.Sprung[Bridge]) > 0 && len(sprung) == 0,
		},
		sizeTarget("binary", r.Facts.BinarySize, maxBinary),
		sizeTarget("peak memory of an ADD", r.MaxRSS, maxMemory),
	}
}

func ratioTarget(what string, e *Estimate, limit float64) Target {
	t := Target{What: fmt.Sprintf("%s at most %.2f", what, limit), Got: "not measured"}
	if e != nil {
		t.Got, t.Met = e.String(), e.Median <= limit
	}
	return t
}

func sizeTarget(what string, got int64, limit float64) Target {
	return Target{
		fmt.Sprintf("%s under %.0f MB", what, limit/1e6), fmt.Sprintf("%.1f MB", float64(got)/1e6),
		got > 0 && float64(got) < limit,
	}
}

func count(n int) string {
	if n == 0 {
		return "not measured"
	}
	return fmt.Sprint(n)
}

func toBridge(r *Row) *Estimate {
	if r == nil {
		return nil
	}
	return r.ToBridge
}

func toControl(r *Row) *Estimate {
	if r == nil {
		return nil
	}
	return r.ToControl
}

// largest returns the greatest number of endpoints that were present.
func largest(rows []Row) int {
	most := 0
	for _, r := range rows {
		most = max(most, r.Endpoints)
	}
	return most
}

// Missed returns the targets that the run did not meet.
func (r *Report) Missed() []Target { return missed(r.Targets) }

func missed(targets []Target) []Target {
	return slices.DeleteFunc(slices.Clone(targets), func(t Target) bool { return t.Met })
}
