// SPDX-License-Identifier: Apache-2.0

package load

import (
	"math/bits"
	"time"
)

// histogram counts durations by their size. A bucket is at most 1/64 of its
// durations wide, so a quantile of it is wrong by less than 1 %.
type histogram struct {
	buckets [(histogramOctaves + 1) << histogramBits]uint64
	count   uint64
}

const (
	histogramBits = 6
	// histogramOctaves make durations of up to 70 s.
	histogramOctaves = 30
)

func (h *histogram) add(d time.Duration) {
	h.buckets[min(bucketOf(uint64(max(d, 0))), len(h.buckets)-1)]++
	h.count++
}

// bucketOf returns the bucket of a number: each of the first ones has one of its
// own, the later ones share it with all that have the same leading bits.
func bucketOf(n uint64) int {
	shift := max(bits.Len64(n)-histogramBits-1, 0)
	return shift<<histogramBits + int(n>>shift)
}

// middleOf returns the number in the middle of a bucket.
func middleOf(bucket int) float64 {
	shift := max(bucket>>histogramBits-1, 0)
	return (float64(bucket-shift<<histogramBits) + 0.5) * float64(uint64(1)<<shift)
}

// quantile returns the duration, in seconds, that a share of all does not exceed.
func (h *histogram) quantile(q float64) float64 {
	rank := uint64(q * float64(h.count))
	for bucket, n := range h.buckets {
		if rank < n {
			return middleOf(bucket) / float64(time.Second)
		}
		rank -= n
	}
	return 0
}

func (h *histogram) latency() Latency {
	return Latency{P50: h.quantile(0.5), P99: h.quantile(0.99), P999: h.quantile(0.999)}
}
