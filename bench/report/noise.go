// SPDX-License-Identifier: Apache-2.0

// What a run cannot tell from nothing, and who disturbed it.

package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/zipline-cni/zipline/bench"
)

// From here on a machine was noisy.
const (
	// noisySteal is the share of CPU time that a hypervisor gave to others.
	noisySteal = 0.01
	// noisyOthers is the share of the machine's CPU time that somebody used
	// during the measurements who is neither of the two ends.
	noisyOthers = 0.10
	// noisyWires is what two equal wires differ by in the median cell.
	noisyWires = 0.03
)

// The share of a run's cells of a kind that are no noisier than a cell is at least
// believed to be, on a quiet machine and on a noisy one.
const (
	quietFloor = 0.5
	noisyFloor = 0.9
)

// fewCells is how many cells of a kind are needed for that; with fewer, all cells of
// the run say what is usual.
const fewCells = 4

// kind is what cells have in common that are about as noisy as each other: bulk
// over many connections differs by half where single transactions differ by 1 %.
type kind struct {
	workload    bench.Workload
	connections int
}

func kindOf(c Cell) kind { return kind{c.Workload, c.Connections} }

// Noise is what two equal wires differed by. A bootstrap interval knows only what
// changes from round to round; what stays the same for a whole run, such as where
// in memory a network's objects came to lie, is in no interval. The two wires have
// that too, and nothing else.
type Noise struct {
	// Facts are the reasons to call the machine noisy, in words. None: it was quiet.
	Facts []string
	// Measured says that there was a second wire. Without it nothing is widened,
	// whatever the Facts.
	Measured bool
	cells    map[Cell]map[Measure]float64
	floor    map[Measure]float64 // of cells of which there are few
	floors   map[kind]map[Measure]float64
}

// newNoise computes the noise of each cell: the distance from 1 of the median ratio
// of the second wire to the first one, as a logarithm.
func newNoise(r *bench.Results, samples *index) *Noise {
	n := &Noise{cells: map[Cell]map[Measure]float64{}, floors: map[kind]map[Measure]float64{}}
	all, kinds := map[Measure][]float64{}, map[kind]map[Measure][]float64{}
	for _, cell := range samples.cells {
		n.cells[cell] = map[Measure]float64{}
		of := kinds[kindOf(cell)]
		if of == nil {
			of = map[Measure][]float64{}
			kinds[kindOf(cell)] = of
		}
		for _, m := range measures {
			if ratio := compare(samples.valid(cell, bench.WireAgain), samples.valid(cell, bench.Wire), m, 0, r.Seed); ratio != nil {
				distance := math.Abs(math.Log(ratio.Median))
				n.cells[cell][m] = distance
				all[m], of[m] = append(all[m], distance), append(of[m], distance)
				n.Measured = true
			}
		}
	}
	n.Facts = disturbances(r, samples)
	if typical := bench.Median(all[Rate]); typical > math.Log1p(noisyWires) {
		n.Facts = append(n.Facts, fmt.Sprintf("two equal wires differed by %.1f %% in the median cell", math.Expm1(typical)*100))
	}
	share := quietFloor
	if len(n.Facts) > 0 {
		share = noisyFloor
	}
	n.floor = quantiles(all, share, 1)
	for k, of := range kinds {
		n.floors[k] = quantiles(of, share, fewCells)
	}
	return n
}

// quantiles returns those of the distances of each measure that has at least so many.
func quantiles(distances map[Measure][]float64, share float64, least int) map[Measure]float64 {
	found := map[Measure]float64{}
	for m, d := range distances {
		if len(d) >= least {
			found[m] = bench.Quantile(d, share)
		}
	}
	return found
}

// Of returns the noise of a measure in a cell. A single cell's wires may agree by
// luck, so it is never less than what the run's cells of this workload and number of
// connections usually have: half of them, or nine of ten where the machine was noisy.
func (n *Noise) Of(cell Cell, m Measure) float64 {
	floor, ok := n.floors[kindOf(cell)][m]
	if !ok {
		floor = n.floor[m]
	}
	return max(n.cells[cell][m], floor)
}

// String returns a sentence for the top of a page, or "" for a quiet machine.
func (n *Noise) String() string {
	if len(n.Facts) == 0 {
		return ""
	}
	return "This machine was noisy: " + strings.Join(n.Facts, "; ") + "."
}

// disturbances returns in words who wanted the CPUs beside the measurements.
func disturbances(r *bench.Results, samples *index) []string {
	var facts []string
	if r.Machine.LoadBefore > bench.QuietLoad {
		facts = append(facts, fmt.Sprintf("its load average was %.1f before the run began", r.Machine.LoadBefore))
	}
	if r.Machine.Steal > noisySteal {
		facts = append(facts, fmt.Sprintf("its hypervisor gave %.1f %% of the CPU time to others", r.Machine.Steal*100))
	}
	if others := othersShare(r, samples); others > noisyOthers {
		facts = append(facts, fmt.Sprintf("others used %.0f %% of its CPUs during the measurements", others*100))
	}
	return facts
}

// othersShare returns the median share of the CPUs that was busy during a
// measurement for neither of its ends. Only the wire is asked: what a plugin's way
// costs outside of the ends' threads is nobody else's.
func othersShare(r *bench.Results, samples *index) float64 {
	var shares []float64
	for _, cell := range samples.cells {
		for _, s := range samples.valid(cell, bench.Wire) {
			if s.Total > 0 && r.Machine.CPUs > 0 {
				others := s.Busy - s.Own()*float64(s.Units)
				shares = append(shares, max(0, others)/(s.Seconds*float64(r.Machine.CPUs)))
			}
		}
	}
	if len(shares) == 0 {
		return 0
	}
	return bench.Median(shares)
}
