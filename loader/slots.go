// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/bpf"
)

// networkSlot returns the slot of a network's rows in the counters map, and
// gives it one when it has none. Slots are not taken back: counters only rise.
// 0 is for no name, and for networks that come when no slot is left. The caller
// holds the lock of the maps.
func (s *set) networkSlot(name string) (_ uint32, err error) {
	if name == "" {
		return 0, nil
	}
	m, err := s.openMap(bpf.ZiplineMapNetworks)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	key := networkKey(name)
	var slot uint32
	if err := m.Lookup(key, &slot); err == nil || !errors.Is(err, ebpf.ErrKeyNotExist) {
		return slot, err
	}
	taken, err := entries[bpf.ZiplineNetworkName, uint32](m)
	if err != nil {
		return 0, err
	}
	if slot = freeSlot(taken); slot == 0 {
		return 0, nil
	}
	return slot, put(m, key, slot)
}

// freeSlot returns the first slot that is not taken, or 0.
func freeSlot(taken map[bpf.ZiplineNetworkName]uint32) uint32 {
	var used [bpf.NetworkSlots]bool
	for _, slot := range taken {
		used[slot%bpf.NetworkSlots] = true
	}
	for slot := uint32(1); slot < bpf.NetworkSlots; slot++ {
		if !used[slot] {
			return slot
		}
	}
	return 0
}

// networkNames returns the names of the networks by their slot, with "" for 0.
func (s *set) networkNames() (_ map[uint32]string, err error) {
	m, err := s.openMap(bpf.ZiplineMapNetworks)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	slots, err := entries[bpf.ZiplineNetworkName, uint32](m)
	if err != nil {
		return nil, fmt.Errorf("read networks: %w", err)
	}
	names := map[uint32]string{0: ""}
	for key, slot := range slots {
		names[slot] = networkName(key)
	}
	return names, nil
}

// networkKey is the name as the map has it. One of 64 bytes or more is cut, so
// that those which begin alike are counted together.
func networkKey(name string) (key bpf.ZiplineNetworkName) {
	copy(key.Text[:len(key.Text)-1], name)
	return key
}

func networkName(key bpf.ZiplineNetworkName) string {
	name, _, _ := bytes.Cut(key.Text[:], []byte{0})
	return string(name)
}
