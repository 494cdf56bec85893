// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/bpf"
)

// slotsOf returns the slot of an address, and of its device.
func slotsOf(t *testing.T, n *Node, addr netip.Addr) (endpoint, device uint32) {
	t.Helper()
	var ep bpf.ZiplineEndpoint
	var dev bpf.ZiplineDevice
	must(t, n.maps[bpf.ZiplineMapEndpoints].Lookup(key(addr), &ep))
	must(t, n.maps[bpf.ZiplineMapDevices].Lookup(ep.Ifindex, &dev))
	return ep.Slot, dev.Slot
}

func TestNetworksHaveSlotsWhileThereAreAny(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	publish := func(i int, name string, want uint32) {
		t.Helper()
		ep, addr := someEndpoint(i, 1), netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
		ep.NetworkName = name
		must(t, n.Upsert(addr, ep))
		if endpoint, device := slotsOf(t, n, addr); endpoint != want || device != want {
			t.Errorf("network %.20q: the endpoint has slot %d, its device %d, want %d", name, endpoint, device, want)
		}
	}
	long := strings.Repeat("x", 63)
	publish(1, "", 0)
	for i := 1; i < bpf.NetworkSlots-1; i++ {
		publish(i, fmt.Sprint("net", i), uint32(i))
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
		if endpoint, device := slotsOf(t, to, addr); names[endpoint] != want || names[device] != want {
			t.Errorf("%s is counted for %q and %q, want %q", addr, names[endpoint], names[device], want)
		}
	}
}
