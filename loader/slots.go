// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/bpf"
)

// slots is where packets are counted; see struct slots of bpf/lib/maps.h.
type slots struct{ network, path uint16 }

// slotsOf gives an endpoint and its device their slots; a device that is there
// keeps its own. The caller holds the lock of the maps.
func (n *Node) slotsOf(ep *Endpoint, earlier *bpf.ZiplineDevice) (s slots, err error) {
	if s.network, err = n.networkSlot(ep.NetworkName); err != nil {
		return slots{}, err
	}
	if earlier != nil && earlier.HostMac == [6]byte(ep.HostMAC) {
		s.path = earlier.Slots.Path
		return s, nil
	}
	s.path, err = n.pathSlot()
	return s, err
}

// pathSlot takes a path slot, or 0 when there is none. DEL gives none back, so
// that it has nothing to wait for: when all were given away, those of devices that
// are not published any more start again at zero.
func (n *Node) pathSlot() (_ uint16, err error) {
	m, err := n.openMap(bpf.ZiplineMapPathSlots)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	var given bpf.ZiplinePathSlots
	if err := m.Lookup(uint32(0), &given); err != nil {
		return 0, fmt.Errorf("read path slots: %w", err)
	}
	given.Taken[0] |= 1 // nobody's
	slot := firstFree(&given)
	switch {
	case slot != 0:
	case given.Wait > 0:
		given.Wait--
	default:
		free, err := n.reclaimPaths(&given)
		if err != nil {
			return 0, err
		}
		// All devices are read for it, so not for a handful.
		if free < reclaimWorth {
			given.Wait = reclaimWorth
		}
		slot = firstFree(&given)
	}
	given.Taken[slot/64] |= 1 << (slot % 64)
	return slot, put(m, uint32(0), &given)
}

// reclaimWorth is how many ADDs there are between two looks for free slots, at least.
const reclaimWorth = 256

// firstFree returns the first slot that is not taken, or 0.
func firstFree(given *bpf.ZiplinePathSlots) uint16 {
	for i, word := range given.Taken {
		if word != ^uint64(0) {
			return uint16(i*64 + bits.TrailingZeros64(^word))
		}
	}
	return 0
}

// reclaimPaths takes back the slots of devices that are gone, and returns how many
// are free.
func (n *Node) reclaimPaths(given *bpf.ZiplinePathSlots) (free int, err error) {
	m, err := n.openMap(bpf.ZiplineMapPaths)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	devices, err := entries[uint32, bpf.ZiplineDevice](n.maps[bpf.ZiplineMapDevices])
	if err != nil {
		return 0, err
	}
	given.Taken = [len(given.Taken)]uint64{1}
	for _, d := range devices {
		given.Taken[d.Slots.Path/64] |= 1 << (d.Slots.Path % 64)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return 0, fmt.Errorf("count CPUs: %w", err)
	}
	for slot := range uint32(bpf.PathSlots) {
		if given.Taken[slot/64]&(1<<(slot%64)) != 0 {
			continue
		}
		if err := m.Put(slot, make([]bpf.ZiplinePath, cpus)); err != nil {
			return 0, fmt.Errorf("clear path: %w", err)
		}
		free++
	}
	return free, nil
}

// networkSlot returns the slot of a network's rows in the counters map, and
// gives it one when it has none. Slots are not taken back: counters only rise.
// 0 is for no name, and for networks that come when no slot is left. The caller
// holds the lock of the maps.
func (s *set) networkSlot(name string) (_ uint16, err error) {
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
		return uint16(slot), err
	}
	taken, err := entries[bpf.ZiplineNetworkName, uint32](m)
	if err != nil {
		return 0, err
	}
	if slot = freeSlot(taken); slot == 0 {
		return 0, nil
	}
	if err := put(m, key, slot); errors.Is(err, ErrFull) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return uint16(slot), nil
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
func (s *set) networkNames() (_ map[uint16]string, err error) {
	m, err := s.openMap(bpf.ZiplineMapNetworks)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	slots, err := entries[bpf.ZiplineNetworkName, uint32](m)
	if err != nil {
		return nil, fmt.Errorf("read networks: %w", err)
	}
	names := map[uint16]string{0: ""}
	for key, slot := range slots {
		names[uint16(slot)] = networkName(key)
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
