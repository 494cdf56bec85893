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
	random := rand.New(rand.NewPCG(seed, 0))
	medians := make([]float64, resamples)
	sample := make([]float64, len(values))
	for i := range medians {
		for j := range sample {
			sample[j] = values[random.IntN(len(values))]
		}
		medians[i] = Median(sample)
	}
	e.Low, e.High = Quantile(medians, 0.025), Quantile(medians, 0.975)
	return e
}

// keyedValue is a value with what makes it one of a pair.
type keyedValue[K comparable] struct {
	key   K
	value float64
}

// pairedRatios divides each value of a by the one of b that has the same key, and
// leaves out the ones without a pair.
func pairedRatios[K comparable](a, b []keyedValue[K]) []float64 {
	divisors := map[K]float64{}
	for _, v := range b {
		divisors[v.key] = v.value
	}
	var out []float64
	for _, v := range a {
		if divisor, ok := divisors[v.key]; ok && divisor > 0 {
			out = append(out, v.value/divisor)
		}
	}
	return out
}
