// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/zipline-cni/zipline/bpf"
)

// Count says how many packets met with a reason.
type Count struct {
	Hook     bpf.Hook
	Reason   bpf.Reason
	Endpoint int // as in Event
	Packets  uint64
	Bytes    uint64
}

// Counts returns what was added up since [Open], the greatest first.
func (t *Tracer) Counts() ([]Count, error) {
	var key bpf.TraceKey
	var perCPU []bpf.ZiplineCounter
	var counts []Count
	iterator := t.maps[bpf.TraceMapTraceCounts].Iterate()
	for iterator.Next(&key, &perCPU) {
		c := Count{Hook: bpf.Hook(key.Hook), Reason: bpf.Reason(key.Reason), Endpoint: int(key.Endpoint)}
		for _, cpu := range perCPU {
			c.Packets += cpu.Packets
			c.Bytes += cpu.Bytes
		}
		counts = append(counts, c)
	}
	if err := iterator.Err(); err != nil {
		return nil, fmt.Errorf("read counts: %w", err)
	}
	slices.SortFunc(counts, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Hook, b.Hook), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	return counts, nil
}

// Missed says how many events there were that Read did not return.
type Missed struct {
	// Lost had no room: the reader was too slow.
	Lost uint64
	// Suppressed were over the rate.
	Suppressed uint64
}

// Missed returns what was missed since [Open].
func (t *Tracer) Missed() (m Missed, err error) {
	for row, to := range []*uint64{&m.Lost, &m.Suppressed} {
		var perCPU []uint64
		if err := t.maps[bpf.TraceMapTraceStats].Lookup(uint32(row), &perCPU); err != nil {
			return m, fmt.Errorf("read statistics: %w", err)
		}
		for _, n := range perCPU {
			*to += n
		}
	}
	return m, nil
}
