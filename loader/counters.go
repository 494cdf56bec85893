// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/bpf"
)

// Counter says how many packets of a network a program gave a verdict for one
// reason, since the maps were made. A GSO packet counts once; bytes include the
// Ethernet header.
type Counter struct {
	// Network is the name of the network whose endpoint sent the packet or was to
	// get it, cut after 63 bytes. It is "" where none is known: traffic of the
	// node itself, what only the stack finds an endpoint for, everything that
	// to_device counts, and networks that came when all slots were taken.
	Network string
	Hook    bpf.Hook
	Reason  bpf.Reason
	Packets uint64
	Bytes   uint64
}

// Path says what became of the packets that a device's container sent, since the
// device was published. A GSO packet counts once.
type Path struct {
	// Carried by the programs past the stack, or answered by them.
	Carried uint64
	Dropped uint64
	// Left to the stack.
	Left uint64
}

// Paths returns the paths of the published devices, by index. One that came when
// no slot was left has none.
func (n *Node) Paths() (_ map[int]Path, err error) {
	m, err := n.openMap(bpf.ZiplineMapPaths)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	devices, err := entries[uint32, bpf.ZiplineDevice](n.maps[bpf.ZiplineMapDevices])
	if err != nil {
		return nil, err
	}
	paths := make(map[int]Path, len(devices))
	var perCPU []bpf.ZiplinePath
	for index, d := range devices {
		if d.Slots.Path == 0 {
			continue
		}
		if err := m.Lookup(uint32(d.Slots.Path), &perCPU); err != nil {
			return nil, fmt.Errorf("read paths: %w", err)
		}
		var p Path
		for _, cpu := range perCPU {
			p.Carried, p.Dropped, p.Left = p.Carried+cpu.Carried, p.Dropped+cpu.Dropped, p.Left+cpu.Left
		}
		paths[int(index)] = p
	}
	return paths, nil
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

// Counters returns the counters that are not zero, by network, program and reason.
func (n *Node) Counters() (_ []Counter, err error) {
	m, err := n.openMap(bpf.ZiplineMapCounters)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	networks, err := n.networkNames()
	if err != nil {
		return nil, err
	}
	var counters []Counter
	for _, slot := range slices.Sorted(maps.Keys(networks)) {
		if counters, err = appendSlot(counters, m, slot, networks[slot]); err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
	}
	return counters, nil
}

// appendSlot appends the counters of a slot that are not zero.
func appendSlot(counters []Counter, m *ebpf.Map, slot uint16, network string) ([]Counter, error) {
	const rows = bpf.Hooks * bpf.Reasons
	var perCPU []bpf.ZiplineCounter
	for row := range uint32(rows) {
		if err := m.Lookup(uint32(slot)*rows+row, &perCPU); err != nil {
			return nil, err
		}
		c := Counter{Network: network, Hook: bpf.Hook(row / bpf.Reasons), Reason: bpf.Reason(row % bpf.Reasons)}
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
