// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestQuantileInterpolatesBetweenNeighbours(t *testing.T) {
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{[]float64{7}, 0.99, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{0, 10}, 0.99, 9.9},
		{[]float64{5, 1, 3}, 0, 1},
		{[]float64{5, 1, 3}, 1, 5},
	} {
		if got := Quantile(c.values, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("quantile %v of %v = %v; want %v", c.q, c.values, got, c.want)
		}
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("quantile of nothing = %v; want NaN", got)
	}
}

func TestQuantileLeavesItsInputInOrder(t *testing.T) {
	values := []float64{3, 1, 2}
	Quantile(values, 0.5)
	if values[0] != 3 || values[1] != 1 {
		t.Errorf("values are now %v", values)
	}
}

func TestIntervalIsReproducibleAndHoldsItsMedian(t *testing.T) {
	values := []float64{0.2, 0.22, 0.19, 0.3, 0.21, 0.25, 0.18, 0.9}
	first, again := EstimateMedian(values, 1), EstimateMedian(values, 1)
	if first != again {
		t.Errorf("same values and seed: %+v, then %+v", first, again)
	}
	if first.Low > first.Median || first.Median > first.High || first.Low == first.High {
		t.Errorf("%+v is not an interval around its median", first)
	}
	if first.High >= 0.9 {
		t.Errorf("%+v: one outlier moved the interval of a median to itself", first)
	}
}

func TestIntervalOfEqualValuesIsAPoint(t *testing.T) {
	want := Estimate{Median: 2, Low: 2, High: 2, Count: 3}
	if got := EstimateMedian([]float64{2, 2, 2}, 1); got != want {
		t.Errorf("%+v; want %+v", got, want)
	}
}

func TestIntervalCoversTheTrueMedian(t *testing.T) {
	const trials = 200
	covered := 0
	random := rand.New(rand.NewPCG(1, 2))
	for range trials {
		values := make([]float64, 40)
		for i := range values {
			values[i] = random.ExpFloat64()
		}
		if e := EstimateMedian(values, 3); e.Low <= math.Ln2 && math.Ln2 <= e.High {
			covered++
		}
	}
	// 95 of 100 in the long run; four standard deviations below is 89.
	if covered*100 < 89*trials {
		t.Errorf("%d of %d intervals hold the true median", covered, trials)
	}
}

func TestMedianOfASampleIsThatOfItsValues(t *testing.T) {
	sorted := []float64{1, 2, 4, 8}
	for _, c := range []struct {
		times []int
		want  []float64
	}{
		{[]int{1, 1, 1, 1}, []float64{1, 2, 4, 8}},
		{[]int{0, 3, 0, 1}, []float64{2, 2, 2, 8}},
		{[]int{0, 0, 0, 4}, []float64{8, 8, 8, 8}},
	} {
		for i, want := range c.want {
			if got := drawn(sorted, c.times, i); got != want {
				t.Errorf("value %d of %v times %v is %v; want %v", i, c.times, sorted, got, want)
			}
		}
	}
}
