// SPDX-License-Identifier: Apache-2.0

// What a [Run] has measured, as it is in a file.

package bench

import (
	"io"
	"time"
)

// ResultsVersion is the version of the format of [Results]. A reader refuses another one.
const ResultsVersion = 1

// Results is what a run of the whole comparison has measured: every sample, and
// what is needed to repeat it. Everything that a report says is computed from it.
type Results struct {
	Version int     `json:"version"`
	Machine Machine `json:"machine"`
	// Duration and Warmup of each measurement of a connection.
	Duration  time.Duration `json:"duration"`
	Warmup    time.Duration `json:"warmup"`
	Placement Placement     `json:"placement"`
	Seed      uint64        `json:"seed"`
	// Cases are the subjects of Flows, in the order of their files.
	Cases []Case `json:"cases"`
	// Failures say which cases were left out, wholly or from some point on, and why.
	Failures []Failure `json:"failures,omitempty"`
	// Incomplete says what ended the run before its time. Empty for a whole run.
	Incomplete string `json:"incomplete,omitempty"`
	// Flows are the samples of connections. Those with Endpoints set are of
	// growing networks.
	Flows []FlowSample `json:"flows"`
	// Attach are the samples of ADD and DEL, and Facts what is counted beside them.
	Attach []Sample `json:"attach"`
	Facts  Facts    `json:"facts"`
	// Maps is the memory of the eBPF maps and programs. The kernel does not tell
	// what nftables' sets take: they are in [Facts].KernelMemory.
	Maps []MapMemory `json:"maps"`
	// Crosschecks compare the generator with other tools.
	Crosschecks []Crosscheck `json:"crosschecks"`
}

// WriteJSON writes all of it.
func (r *Results) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

// Failure is a case, or a part of all of them, that a run went on without. The
// samples from before count.
type Failure struct {
	// Subject is the case's name, or empty.
	Subject Subject `json:"subject"`
	// What was done, such as "build the network" or "off node, TCP_RR, 32 connections".
	What string `json:"what"`
	Why  string `json:"why"`
}

// MapMemory is what a map of the plugin under test takes with a number of endpoints.
type MapMemory struct {
	Endpoints int `json:"endpoints"`
	// Name of the map; "programs" is all programs of the node, with their machine code.
	Name string `json:"name"`
	// Bytes of kernel memory, as the kernel says.
	Bytes uint64 `json:"bytes"`
}

// Crosscheck is one figure measured by this package's generator and by another
// tool, each on the same path, in turn. Note says why there is none.
type Crosscheck struct {
	What string `json:"what"`
	// Tool and its version.
	Tool string `json:"tool"`
	Unit string `json:"unit"`
	// Ours and Theirs are the figures of each round.
	Ours   []float64 `json:"ours"`
	Theirs []float64 `json:"theirs"`
	Note   string    `json:"note,omitempty"`
}
