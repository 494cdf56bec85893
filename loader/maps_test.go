// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/zipline-cni/zipline/bpf"
)

func someEndpoint(index int, network uint64) Endpoint {
	return Endpoint{
		IfIndex: index, MTU: 9000, Network: network,
		ContainerMAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(index)}, HostMAC: net.HardwareAddr{2, 0, 0, 0, 1, byte(index)},
		SourceCheck: true, Direct: true,
	}
}

func TestEndpointsComeBackAsTheyWere(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	for i, text := range []string{"10.1.0.1", "fd00::1"} {
		addr := netip.MustParseAddr(text)
		_, err := n.Lookup(addr)
		wantError(t, err, ErrNotFound)
		for flags := range 8 {
			ep := someEndpoint(7+i, 0xfedcba9876543210)
			ep.SourceCheck, ep.MACCheck, ep.Direct = flags&1 > 0, flags&2 > 0, flags&4 > 0
			must(t, n.Upsert(addr, ep))
			have, err := n.Lookup(addr)
			must(t, err)
			if !reflect.DeepEqual(have, ep) {
				t.Errorf("%s is %+v, want %+v", addr, have, ep)
			}
			dev, networks, err := n.LookupDevice(7 + i)
			must(t, err)
			ep.MTU, ep.Network = 0, 0
			if !reflect.DeepEqual(dev, ep) || !slices.Equal(networks, []uint64{0xfedcba9876543210}) {
				t.Errorf("device is %+v %x, want %+v", dev, networks, ep)
			}
		}
	}
}

func TestSenselessEndpointsAreRefused(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	addr := netip.MustParseAddr("10.1.0.1")
	for name, change := range map[string]func(*Endpoint){
		"no device":       func(e *Endpoint) { e.IfIndex = 0 },
		"negative device": func(e *Endpoint) { e.IfIndex = -1 },
		"no mtu":          func(e *Endpoint) { e.MTU = 0 },
		"no mac":          func(e *Endpoint) { e.ContainerMAC = nil },
		"a long host mac": func(e *Endpoint) { e.HostMAC = make(net.HardwareAddr, 8) },
	} {
		ep := someEndpoint(7, 1)
		change(&ep)
		if err := n.Upsert(addr, ep); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	_, err := n.Lookup(addr)
	wantError(t, err, ErrNotFound)
}

func TestDeleteAsksForTheOwner(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	addr := netip.MustParseAddr("10.1.0.1")
	must(t, n.Upsert(addr, someEndpoint(7, 1)))
	must(t, n.Delete(addr, 8))
	if _, err := n.Lookup(addr); err != nil {
		t.Errorf("another device deleted the entry: %v", err)
	}
	must(t, n.Delete(addr, 7))
	_, err := n.Lookup(addr)
	wantError(t, err, ErrNotFound)
	must(t, n.Delete(addr, 7))

	must(t, n.Forget(7))
	must(t, n.Forget(7))
	_, _, err = n.LookupDevice(7)
	wantError(t, err, ErrNotFound)
}

func TestADeviceRemembersItsNetworks(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	for i, network := range []uint64{4, 6, 4, 0, 5, 7, 8} {
		must(t, n.Upsert(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), someEndpoint(7, network)))
	}
	_, networks, err := n.LookupDevice(7)
	must(t, err)
	if want := []uint64{4, 6, 5, 7}; !slices.Equal(networks, want) {
		t.Errorf("networks are %v, want the first four, %v", networks, want)
	}
	// The index is another device's now.
	ep := someEndpoint(7, 9)
	ep.HostMAC = net.HardwareAddr{2, 9, 9, 9, 9, 9}
	must(t, n.Upsert(netip.MustParseAddr("10.1.0.1"), ep))
	_, networks, err = n.LookupDevice(7)
	must(t, err)
	if !slices.Equal(networks, []uint64{9}) {
		t.Errorf("networks are %v, want 9 alone", networks)
	}
}

func TestCollectKeepsTheLiving(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }
	for i := range 600 {
		must(t, n.Upsert(addr(i), someEndpoint(1+i%3, 1)))
	}
	must(t, n.Collect(func(index int) bool { return index == 2 }))
	for i := range 600 {
		_, err := n.Lookup(addr(i))
		if alive := i%3 == 1; alive != (err == nil) {
			t.Fatalf("entry %d of device %d: %v", i, 1+i%3, err)
		}
	}
	for index := 1; index <= 3; index++ {
		if _, _, err := n.LookupDevice(index); (index == 2) != (err == nil) {
			t.Errorf("device %d: %v", index, err)
		}
	}
}

func TestAFullMapIsAnError(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	m := n.maps[bpf.ZiplineMapEndpoints]
	ep := someEndpoint(7, 1)
	for i := range 65536 {
		must(t, put(m, key(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})), ep.value(slots{})))
	}
	wantError(t, n.Upsert(netip.MustParseAddr("10.2.0.0"), ep), ErrFull)
	must(t, n.Upsert(netip.MustParseAddr("10.1.0.0"), ep)) // one that is there
}

func TestCountersAreSummedAndNamed(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	counters, err := n.Counters()
	must(t, err)
	if len(counters) != 0 {
		t.Errorf("new counters are %v", counters)
	}
	const reason = bpf.ZiplineReasonREASON_DROP_MAC
	ep := someEndpoint(7, 1)
	ep.NetworkName = "first"
	must(t, n.Upsert(netip.MustParseAddr("10.1.0.1"), ep))
	ep.NetworkName = "pods"
	must(t, n.Upsert(netip.MustParseAddr("10.1.0.1"), ep))
	n.count(t, 0, bpf.HookUplink, reason)
	n.count(t, 2, bpf.HookEndpoint, reason)
	cpus := n.count(t, 2, bpf.HookDevice, reason)
	counters, err = n.Counters()
	must(t, err)
	want := []Counter{
		{"", bpf.HookUplink, reason, cpus, 100 * cpus},
		{"pods", bpf.HookEndpoint, reason, cpus, 100 * cpus}, {"pods", bpf.HookDevice, reason, cpus, 100 * cpus},
	}
	if !slices.Equal(counters, want) {
		t.Errorf("counters are %v, want %v", counters, want)
	}
}

// count lets each CPU count a packet of 100 bytes, and returns how many CPUs there are.
func (n *Node) count(t *testing.T, slot uint32, hook bpf.Hook, reason bpf.Reason) uint64 {
	t.Helper()
	m, err := n.openMap(bpf.ZiplineMapCounters)
	must(t, err)
	defer func() { _ = m.Close() }()
	row := make([]bpf.ZiplineCounter, len(mustCPUs(t, m)))
	for i := range row {
		row[i].Packets, row[i].Bytes = 1, 100
	}
	must(t, m.Put((slot*bpf.Hooks+uint32(hook))*bpf.Reasons+uint32(reason), row))
	return uint64(len(row))
}

func TestErrorsSayWhatTheyAreAbout(t *testing.T) {
	cause := errors.New("cause")
	for _, c := range []struct {
		err  error
		is   error
		text string
	}{
		{&LoadError{Err: cause}, cause, "load programs: cause"},
		{&LoadError{Err: cause, Kind: ErrNotSupported}, ErrNotSupported, "load programs: not supported by this kernel: cause"},
		{&BPFFSError{Path: "/sys/fs/bpf", Err: cause}, cause, "bpffs at /sys/fs/bpf: cause"},
	} {
		if c.err.Error() != c.text || !errors.Is(c.err, c.is) {
			t.Errorf("error is %q, want %q, and is %v", c.err, c.text, c.is)
		}
		if plain := fmt.Sprintf("%+v", c.err); plain != c.text && !errors.As(c.err, new(*BPFFSError)) {
			t.Errorf("%%+v is %q, want %q", plain, c.text)
		}
	}
}
