// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

// Upsert publishes an address: from now on its neighbours reach it, and its
// device may send from it. It comes after everything that a packet may meet is
// ready. Returns [ErrFull].
func (n *Node) Upsert(addr netip.Addr, ep Endpoint) error {
	if err := ep.check(); err != nil {
		return fmt.Errorf("publish %s: %w", addr, err)
	}
	return n.change(func() error {
		counted, err := n.upsertDevice(&ep)
		if err != nil {
			return fmt.Errorf("publish device of %s: %w", addr, err)
		}
		if err := put(n.maps[bpf.ZiplineMapEndpoints], key(addr), ep.value(counted)); err != nil {
			return fmt.Errorf("publish %s: %w", addr, err)
		}
		return nil
	})
}

// upsertDevice returns where the packets of the device are counted.
func (n *Node) upsertDevice(ep *Endpoint) (slots, error) {
	devices := n.maps[bpf.ZiplineMapDevices]
	var earlier *bpf.ZiplineDevice
	var d bpf.ZiplineDevice
	switch err := devices.Lookup(uint32(ep.IfIndex), &d); {
	case err == nil:
		earlier = &d
	case !errors.Is(err, ebpf.ErrKeyNotExist):
		return slots{}, err
	}
	counted, err := n.slotsOf(ep, earlier)
	if err != nil {
		return slots{}, err
	}
	return counted, put(devices, uint32(ep.IfIndex), ep.device(earlier, counted))
}

// Lookup returns the entry of an address. Returns [ErrNotFound].
func (n *Node) Lookup(addr netip.Addr) (Endpoint, error) {
	var v bpf.ZiplineEndpoint
	if err := get(n.maps[bpf.ZiplineMapEndpoints], key(addr), &v); err != nil {
		return Endpoint{}, fmt.Errorf("look up %s: %w", addr, err)
	}
	return endpointOf(&v), nil
}

// LookupDevice returns what is published of a device whatever its address: the
// MACs and flags of an Endpoint, and its networks. Returns [ErrNotFound].
func (n *Node) LookupDevice(index int) (Endpoint, []uint64, error) {
	var v bpf.ZiplineDevice
	if err := get(n.maps[bpf.ZiplineMapDevices], uint32(index), &v); err != nil {
		return Endpoint{}, nil, fmt.Errorf("look up device %d: %w", index, err)
	}
	ep := endpointOf(&bpf.ZiplineEndpoint{Ifindex: uint32(index), Mac: v.Mac, HostMac: v.HostMac, Flags: v.Flags})
	var networks []uint64
	for _, network := range v.Networks {
		if network != 0 {
			networks = append(networks, network)
		}
	}
	return ep, networks, nil
}

// Delete withdraws an address if its entry is the device's. An entry of
// another device stays: the address has a new holder. No entry is no error.
func (n *Node) Delete(addr netip.Addr, index int) error {
	return n.change(func() error {
		ep, err := n.Lookup(addr)
		if errors.Is(err, ErrNotFound) || err == nil && ep.IfIndex != index {
			return nil
		}
		if err != nil {
			return err
		}
		return remove(n.maps[bpf.ZiplineMapEndpoints], key(addr))
	})
}

// Forget withdraws what is published of a device itself. It comes after its
// addresses are deleted; no record is no error.
func (n *Node) Forget(index int) error {
	return n.change(func() error {
		return remove(n.maps[bpf.ZiplineMapDevices], uint32(index))
	})
}

func (n *Node) endpoints() (map[netip.Addr]Endpoint, error) {
	values, err := entries[bpf.ZiplineAddress, bpf.ZiplineEndpoint](n.maps[bpf.ZiplineMapEndpoints])
	if err != nil {
		return nil, err
	}
	endpoints := make(map[netip.Addr]Endpoint, len(values))
	for k, v := range values {
		endpoints[addrOf(&k)] = endpointOf(&v)
	}
	return endpoints, nil
}

// change runs f under the lock of the maps. Delete looks before it deletes, so
// it must not meet the publication of a new holder in between.
func (n *Node) change(f func() error) error {
	lock, err := lockFile(mapLockPath(n.dir), unix.LOCK_EX)
	if err != nil {
		return err
	}
	return errors.Join(f(), lock.Close())
}

// mergeMaps copies what from has and to lacks. The caller holds the lock of the maps.
func mergeMaps(to, from *set) error {
	networks, err := from.networkNames()
	if err != nil {
		return err
	}
	renamed := map[uint16]uint16{}
	for slot, network := range networks {
		if renamed[slot], err = to.networkSlot(network); err != nil {
			return err
		}
	}
	// What a device sent is no longer counted for it: its slot may be another's.
	adapt := func(network, path *uint16) { *network, *path = renamed[*network], 0 }
	err = merge[bpf.ZiplineAddress](to, from, bpf.ZiplineMapEndpoints, func(v *bpf.ZiplineEndpoint) { adapt(&v.Slots.Network, &v.Slots.Path) })
	if err != nil {
		return err
	}
	if err := merge[uint32](to, from, bpf.ZiplineMapUplinks, func(*bpf.ZiplineUplink) {}); err != nil {
		return err
	}
	return merge[uint32](to, from, bpf.ZiplineMapDevices, func(v *bpf.ZiplineDevice) { adapt(&v.Slots.Network, &v.Slots.Path) })
}

func merge[K comparable, V any](to, from *set, name string, adapt func(*V)) error {
	values, err := entries[K, V](from.maps[name])
	if err != nil {
		return err
	}
	for k, v := range values {
		adapt(&v)
		if err := to.maps[name].Update(k, v, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("copy entry of %s: %w", name, err)
		}
	}
	return nil
}

// entries reads a whole map. Entries that come and go meanwhile may be missing;
// an iteration that the kernel had to start over is begun again.
func entries[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	for range 5 {
		values := map[K]V{}
		var k K
		var v V
		it := m.Iterate()
		for it.Next(&k, &v) {
			values[k] = v
		}
		err := it.Err()
		if errors.Is(err, ebpf.ErrIterationAborted) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read map: %w", err)
		}
		return values, nil
	}
	return nil, fmt.Errorf("read map: %w", ErrBusy)
}

func get(m *ebpf.Map, k, v any) error {
	err := m.Lookup(k, v)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return ErrNotFound
	}
	return err
}

func put(m *ebpf.Map, k, v any) error {
	err := m.Put(k, v)
	if errors.Is(err, unix.E2BIG) {
		return ErrFull
	}
	return err
}

func remove(m *ebpf.Map, k any) error {
	if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete entry: %w", err)
	}
	return nil
}
