// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/zipline-cni/zipline/bpf"
)

// Counter says how many packets a program gave a verdict for one reason, since
// the maps were made. A GSO packet counts once; bytes include the Ethernet header.
type Counter struct {
	Hook    bpf.Hook
	Reason  bpf.Reason
	Packets uint64
	Bytes   uint64
}

// ReadCounters returns the counters of the calling thread's node. Returns
// [ErrNotLoaded] where there is none.
func ReadCounters() (_ []Counter, err error) {
	n, err := Find(0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return n.Counters()
}

// Counters returns the counters that are not zero, by program and reason.
func (n *Node) Counters() (_ []Counter, err error) {
	m, err := n.openMap(bpf.ZiplineMapCounters)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	var counters []Counter
	var perCPU []bpf.ZiplineCounter
	for row := range uint32(bpf.Hooks * bpf.Reasons) {
		if err := m.Lookup(row, &perCPU); err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
		c := Counter{Hook: bpf.Hook(row / bpf.Reasons), Reason: bpf.Reason(row % bpf.Reasons)}
		for _, cpu := range perCPU {
			c.Packets += cpu.Packets
			c.Bytes += cpu.Bytes
		}
		if c.Packets > 0 {
			counters = append(counters, c)
		}
	}
	return counters, nil
}
