// SPDX-License-Identifier: Apache-2.0

// Ratios of pairs, and what they show.

package report

import (
	"fmt"
	"math"

	"github.com/zipline-cni/zipline/bench"
)

// minPairs is the number of pairs without which nothing is shown: that five of
// five lie on the same side happens in one of sixteen runs by chance, more often
// than a 95 % interval may be wrong.
const minPairs = 6

// Ratio is the median of the ratios of pairs, with an interval that was widened by
// noise.
type Ratio struct {
	Median, Low, High float64
	// Pairs is the number of pairs behind it.
	Pairs int
	// Noise is the logarithm of the factor by which the bootstrap interval was
	// widened on each side.
	Noise float64
}

// newRatio widens the bootstrap interval of a median of ratios. On a scale of
// logarithms, where twice and half are equally far from 1, each end moves outwards
// by the noise, so no interval becomes narrower.
func newRatio(e bench.Estimate, noise float64) Ratio {
	return Ratio{e.Median, e.Low * math.Exp(-noise), e.High * math.Exp(noise), e.Count, noise}
}

// stretched returns a ratio whose interval, less the noise, is so many times as wide
// on the scale of logarithms.
func (r Ratio) stretched(times float64) Ratio {
	wider := func(end float64) float64 { return r.Median * math.Pow(end/r.Median, times) }
	e := bench.Estimate{
		Median: r.Median, Count: r.Pairs,
		Low: wider(r.Low * math.Exp(r.Noise)), High: wider(r.High * math.Exp(-r.Noise)),
	}
	return newRatio(e, r.Noise)
}

// stretch returns how much wider intervals have to be for all of so many to hold at
// once as often as one of them does (Bonferroni), if medians are normal.
func stretch(count int) float64 {
	z := func(miss float64) float64 { return math.Sqrt2 * math.Erfinv(1-miss) }
	return z(0.05/float64(count)) / z(0.05)
}

// Verdict is what a ratio shows.
type Verdict string

// The verdicts. Better and worse depend on what is measured.
const (
	Better   Verdict = "better"
	Worse    Verdict = "worse"
	NotShown Verdict = "no difference shown"
)

// Verdict judges a ratio of a measure.
func (r Ratio) Verdict(m Measure) Verdict {
	side := 0
	switch {
	case r.Pairs < minPairs:
	case r.Low > 1:
		side = 1
	case r.High < 1:
		side = -1
	}
	switch side {
	case 0:
		return NotShown
	case m.better():
		return Better
	default:
		return Worse
	}
}

// String returns the median with its interval, or "-" for none.
func (r *Ratio) String() string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f [%.3f, %.3f]", r.Median, r.Low, r.High)
}

// pair is what makes two samples of different cases a pair, if they are of one cell.
type pair = int

// valuesOf returns a measure of samples with their rounds.
func valuesOf(samples []bench.FlowSample, m Measure) []bench.Keyed[pair] {
	var out []bench.Keyed[pair]
	for _, s := range samples {
		if value, ok := m.of(s); ok {
			out = append(out, bench.Keyed[pair]{Key: s.Round, Value: value})
		}
	}
	return out
}

// compare returns the ratio of samples to others, or nil without a pair.
func compare(samples, others []bench.FlowSample, m Measure, noise float64, seed uint64) *Ratio {
	ratios := bench.PairedRatios(valuesOf(samples, m), valuesOf(others, m))
	if len(ratios) == 0 {
		return nil
	}
	r := newRatio(bench.EstimateMedian(ratios, seed), noise)
	return &r
}

// median returns that of a measure of samples, or false without one.
func median(samples []bench.FlowSample, m Measure) (float64, bool) {
	var values []float64
	for _, v := range valuesOf(samples, m) {
		values = append(values, v.Value)
	}
	return bench.Median(values), len(values) > 0
}
