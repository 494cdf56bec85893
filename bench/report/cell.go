// SPDX-License-Identifier: Apache-2.0

// What a figure is about, and the order and words of all of them.

package report

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/zipline-cni/zipline/bench"
)

// Cell is what samples have in common that are compared.
type Cell struct {
	Path        bench.Path
	Workload    bench.Workload
	Connections int
	// Endpoints on the network, where a run varies them, else 0.
	Endpoints int
}

// cellOf returns the cell of a sample. One that says nothing of its connections
// has one.
func cellOf(s bench.FlowSample) Cell {
	return Cell{s.Path, s.Workload, max(s.Connections, 1), s.Endpoints}
}

// String returns words for a reader. One connection is not mentioned.
func (c Cell) String() string {
	text := fmt.Sprintf("%s %s", c.Path, c.Workload)
	if c.Connections > 1 {
		text += fmt.Sprintf(", %d connections", c.Connections)
	}
	if c.Endpoints > 0 {
		text += fmt.Sprintf(", endpoints: %d", c.Endpoints)
	}
	return text
}

// compareCells orders as the lists of package bench do. What is in neither comes
// behind, by name.
func compareCells(a, b Cell) int {
	return cmp.Or(inOrder(bench.Paths, a.Path, b.Path), inOrder(bench.Workloads, a.Workload, b.Workload),
		cmp.Compare(a.Connections, b.Connections), cmp.Compare(a.Endpoints, b.Endpoints))
}

// inOrder compares by the place in a list. What is not in it comes behind.
func inOrder[T cmp.Ordered](order []T, a, b T) int {
	at := func(v T) int {
		if i := slices.Index(order, v); i >= 0 {
			return i
		}
		return len(order)
	}
	return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a, b))
}

// Measure is what of a sample is compared.
type Measure string

// The measures.
const (
	// Rate is units per second.
	Rate Measure = "rate"
	// P50 and P99 are quantiles of a sample's latency in seconds.
	P50 Measure = "p50"
	P99 Measure = "p99"
	// CPU is the CPU seconds of the whole machine per unit.
	CPU Measure = "cpu"
	// Own is the CPU seconds of the two ends per unit.
	Own Measure = "own cpu"
)

// measures in the order of a report.
var measures = []Measure{Rate, P50, P99, CPU, Own}

// of returns the measure of a sample, or false where it has none: a logarithm is
// taken of all of them.
func (m Measure) of(s bench.FlowSample) (float64, bool) {
	value := 0.0
	switch {
	case s.Units == 0 || s.Seconds == 0:
	case m == Rate:
		value = s.Rate()
	case m == P50 && s.Latency != nil:
		value = s.Latency.P50
	case m == P99 && s.Latency != nil:
		value = s.Latency.P99
	case m == CPU:
		value = s.Cost()
	case m == Own && s.Total > 0:
		value = s.Own()
	}
	return value, value > 0
}

// better says on which side of 1 a ratio is good: 1 above, -1 below.
func (m Measure) better() int {
	if m == Rate {
		return 1
	}
	return -1
}
