// SPDX-License-Identifier: Apache-2.0

package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantilesAreRightToOnePercent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() float64{
		"around 20 µs":       func() float64 { return 20e3 * math.Exp(random.NormFloat64()) },
		"up to a minute":     func() float64 { return math.Exp(random.Float64() * math.Log(60e9)) },
		"a few nanoseconds":  func() float64 { return random.Float64() * 200 },
		"nearly all of them": func() float64 { return 1e6 + math.Trunc(random.Float64()*1.0005)*1e9 },
	} {
		h := &histogram{}
		var all []float64
		for range 20000 {
			d := time.Duration(draw())
			all = append(all, float64(d))
			h.add(d)
		}
		slices.Sort(all)
		got := h.latency()
		for q, got := range map[float64]float64{0.5: got.P50, 0.99: got.P99, 0.999: got.P999} {
			want := all[int(q*float64(len(all)))]
			if diff := math.Abs(got*1e9 - want); diff > 0.01*want && diff > 0.5 {
				t.Errorf("%s: quantile %v is %v ns; want %v ns", name, q, got*1e9, want)
			}
		}
	}
}

func TestBucketsAreInOrderAndFull(t *testing.T) {
	last := -1
	for n := uint64(0); n < 1<<36; n += 1 + n/1000 {
		bucket := bucketOf(n)
		if bucket != last && bucket != last+1 {
			t.Fatalf("%d is in bucket %d, after %d", n, bucket, last)
		}
		if middle := middleOf(bucket); math.Abs(middle-float64(n)) > max(0.5, 0.008*float64(n)) {
			t.Fatalf("%d is in bucket %d, around %v", n, bucket, middle)
		}
		last = bucket
	}
	h := &histogram{}
	if got := h.latency(); got != (Latency{}) {
		t.Errorf("latency of nothing is %+v", got)
	}
	if last != len(h.buckets)-1 {
		t.Errorf("last bucket is %d of %d", last, len(h.buckets))
	}
	h.add(-1)
	h.add(time.Hour)
	if h.buckets[0] != 1 || h.buckets[last] != 1 {
		t.Error("what is out of range is lost")
	}
}

// A transaction that was under way when the measurement began has waited for it.
func TestLatencyIsOfWhatBeganMeanwhile(t *testing.T) {
	m := &meter{now: 100, from: 50}
	m.took(49)
	m.took(50)
	if m.times.count != 1 || m.times.buckets[50] != 1 {
		t.Errorf("%d transactions counted", m.times.count)
	}
}
