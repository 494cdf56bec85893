// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/bpf"
)

// networksOf returns the network slot of an address, and of its device.
func networksOf(t *testing.T, n *Node, addr netip.Addr) (endpoint, device uint16) {
	t.Helper()
	var ep bpf.ZiplineEndpoint
	var dev bpf.ZiplineDevice
	must(t, n.maps[bpf.ZiplineMapEndpoints].Lookup(key(addr), &ep))
	must(t, n.maps[bpf.ZiplineMapDevices].Lookup(ep.Ifindex, &dev))
	return ep.Slots.Network, dev.Slots.Network
}

func TestNetworksHaveSlotsWhileThereAreAny(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	publish := func(i int, name string, want uint16) {
		t.Helper()
		ep, addr := someEndpoint(i, 1), netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
		ep.NetworkName = name
		must(t, n.Upsert(addr, ep))
		if endpoint, device := networksOf(t, n, addr); endpoint != want || device != want {
			t.Errorf("network %.20q: the endpoint has slot %d, its device %d, want %d", name, endpoint, device, want)
		}
	}
	long := strings.Repeat("x", 63)
	publish(1, "", 0)
	for i := 1; i < bpf.NetworkSlots-1; i++ {
		publish(i, fmt.Sprint("net", i), uint16(i))
	}
	publish(20, long+"a", bpf.NetworkSlots-1)
	publish(21, long+"b", bpf.NetworkSlots-1) // cut, so the same
	publish(22, "one too many", 0)
	publish(23, "net3", 3)
	names, err := n.networkNames()
	must(t, err)
	if len(names) != bpf.NetworkSlots || names[0] != "" || names[3] != "net3" || names[bpf.NetworkSlots-1] != long {
		t.Errorf("names are %v", names)
	}
}

// Two sets that became one may have given their slots to different networks.
func TestSlotsSurviveAMerge(t *testing.T) {
	enterNode(t)
	a, b := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")
	to, from := mustOpen(t, Site{}, 0), &Node{}
	other, _, err := load(nil)
	must(t, err)
	t.Cleanup(other.close)
	from.set, from.dir = other, to.dir
	for i, p := range []struct {
		node *Node
		addr netip.Addr
		name string
	}{{to, a, "red"}, {from, b, "blue"}} {
		ep := someEndpoint(i+1, 1)
		ep.NetworkName = p.name
		must(t, p.node.Upsert(p.addr, ep))
	}
	must(t, mergeMaps(to.set, other))
	names, err := to.networkNames()
	must(t, err)
	for addr, want := range map[netip.Addr]string{a: "red", b: "blue"} {
		if endpoint, device := networksOf(t, to, addr); names[endpoint] != want || names[device] != want {
			t.Errorf("%s is counted for %q and %q, want %q", addr, names[endpoint], names[device], want)
		}
	}
}

func TestPathsBelongToADevice(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	a, b := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")
	must(t, n.Upsert(a, someEndpoint(7, 1)))
	must(t, n.Upsert(b, someEndpoint(7, 2)))
	slot := pathOf(t, n, 7)
	if again := n.pass(t, slot, 3); slot == 0 || again != pathOf(t, n, 7) {
		t.Errorf("slots of one device: %d, %d", slot, again)
	}
	paths, err := n.Paths()
	must(t, err)
	if want := (Path{Carried: 3, Dropped: 6, Left: 9}); len(paths) != 1 || paths[7] != want {
		t.Errorf("paths are %v, want %v", paths, want)
	}
	must(t, n.Upsert(netip.MustParseAddr("10.1.0.2"), someEndpoint(8, 1)))
	if other := pathOf(t, n, 8); other == slot {
		t.Errorf("two devices have slot %d", slot)
	}
}

// Slots are given back by nobody, until there is none left.
func TestPathsOfDeadDevicesAreReclaimed(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }
	for i := 1; i < bpf.PathSlots; i++ {
		must(t, n.Upsert(addr(i), someEndpoint(i, 1)))
		n.pass(t, pathOf(t, n, i), 1)
	}
	must(t, n.Upsert(addr(4000), someEndpoint(4000, 1)))
	if slot := pathOf(t, n, 4000); slot != 0 {
		t.Errorf("one too many has slot %d", slot)
	}
	freed := pathOf(t, n, 5)
	must(t, n.Forget(5))
	// Not at once, since it takes a look at every device.
	for i := range reclaimWorth {
		must(t, n.Upsert(addr(5000+i), someEndpoint(5000+i, 1)))
		if slot := pathOf(t, n, 5000+i); slot != 0 {
			t.Fatalf("after %d more, slot %d is found", i, slot)
		}
	}
	must(t, n.Upsert(addr(4001), someEndpoint(4001, 1)))
	if slot := pathOf(t, n, 4001); slot != freed {
		t.Errorf("the new device has slot %d, the freed one is %d", slot, freed)
	}
	paths, err := n.Paths()
	must(t, err)
	if paths[4001] != (Path{}) || paths[6] == (Path{}) {
		t.Errorf("the new device's path is %v, an old one's %v", paths[4001], paths[6])
	}
}

func pathOf(t *testing.T, n *Node, index int) uint16 {
	t.Helper()
	var dev bpf.ZiplineDevice
	must(t, n.maps[bpf.ZiplineMapDevices].Lookup(uint32(index), &dev))
	return dev.Slots.Path
}

// pass writes the counters of a path, and returns its slot.
func (n *Node) pass(t *testing.T, slot uint16, packets uint64) uint16 {
	t.Helper()
	m, err := n.openMap(bpf.ZiplineMapPaths)
	must(t, err)
	defer func() { _ = m.Close() }()
	row := make([]bpf.ZiplinePath, ebpf.MustPossibleCPU())
	row[len(row)-1] = bpf.ZiplinePath{Carried: packets, Dropped: 2 * packets, Left: 3 * packets}
	must(t, m.Put(uint32(slot), row))
	return slot
}
