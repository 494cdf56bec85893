// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
	"math/rand/v2"
	"slices"
)

// resamples is the number of bootstrap samples: the ends of an interval then
// move by about a tenth of its width from one seed to another.
const resamples = 2000

// Quantile returns the value below which the share q (0 to 1) of the values lies,
// interpolated between the two nearest ones. It is NaN without values.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// Median is the quantile 0.5.
func Median(values []float64) float64 { return Quantile(values, 0.5) }

// Estimate is a median and the interval that covers the true one in 95 of 100
// runs, as far as the rounds of this run can tell.
type Estimate struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	// Count is the number of values behind it.
	Count int `json:"count"`
}

// EstimateMedian returns the median of the values and its bootstrap interval. The
// same values and seed always give the same interval.
func EstimateMedian(values []float64, seed uint64) Estimate {
	e := Estimate{Median: Median(values), Count: len(values)}
	if len(values) == 0 {
		e.Low, e.High = math.NaN(), math.NaN()
		return e
	}
	medians := Medians(values, seed)
	e.Low, e.High = Quantile(medians, 0.025), Quantile(medians, 0.975)
	return e
}

// Medians returns the medians of the bootstrap samples of the values, of which
// there has to be one. The same values and seed always give the same medians.
func Medians(values []float64, seed uint64) []float64 {
	random := rand.New(rand.NewPCG(seed, 0))
	sorted := slices.Sorted(slices.Values(values))
	medians := make([]float64, resamples)
	times := make([]int, len(sorted)) // that each value is in the sample
	for i := range medians {
		clear(times)
		for range sorted {
			times[random.IntN(len(sorted))]++
		}
		medians[i] = (drawn(sorted, times, (len(sorted)-1)/2) + drawn(sorted, times, len(sorted)/2)) / 2
	}
	return medians
}

// drawn returns the value at an index of the sample that holds each of the sorted
// values so many times. A report has thousands of intervals: not to sort each
// sample makes them ten times as fast.
func drawn(sorted []float64, times []int, index int) float64 {
	at := 0
	for index >= times[at] {
		index -= times[at]
		at++
	}
	return sorted[at]
}

// Keyed is a value with what makes it one of a pair.
type Keyed[K comparable] struct {
	Key   K
	Value float64
}

// PairedRatios divides each value of a by the one of b that has the same key, and
// leaves out the ones without a pair. They are in the order of a.
func PairedRatios[K comparable](a, b []Keyed[K]) []float64 {
	divisors := map[K]float64{}
	for _, v := range b {
		divisors[v.Key] = v.Value
	}
	var out []float64
	for _, v := range a {
		if divisor, ok := divisors[v.Key]; ok && divisor > 0 {
			out = append(out, v.Value/divisor)
		}
	}
	return out
}
