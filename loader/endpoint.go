// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/zipline-cni/zipline/bpf"
)

// Endpoint says where an address lives and how its packets are treated.
type Endpoint struct {
	// IfIndex is the index of the host veth.
	IfIndex int
	// MTU of the container's device, in bytes.
	MTU int
	// Network is equal for addresses that are neighbours on one L2 segment;
	// 0 has no neighbours. A device finds neighbours in at most four networks.
	Network uint64
	// ContainerMAC is the MAC of the container's device, HostMAC that of the
	// host veth.
	ContainerMAC, HostMAC net.HardwareAddr
	// SourceCheck drops what the device sends from addresses that are not
	// leased to it, MACCheck what it sends from another MAC. Both hold for the
	// device: the last Upsert of any of its addresses decides.
	SourceCheck, MACCheck bool
	// Direct lets the endpoint talk to neighbours that are Direct too past the
	// stack, whether conntrack knows the flow or not.
	Direct bool
	// Tracked lets flows that conntrack calls established pass the stack by,
	// but for those whose conntrack mark has a bit of SlowPathMark.
	Tracked      bool
	SlowPathMark uint32
	// NetworkName is in whose name its packets are counted ([Counter]). Upsert
	// takes it; Lookup does not tell it.
	NetworkName string
}

// The bits of enum endpoint_flags in bpf/lib/maps.h.
const (
	flagSourceCheck = 1 << iota
	flagMACCheck
	flagDirect
	flagTracked
)

func (e *Endpoint) flags() (flags uint32) {
	if e.SourceCheck {
		flags |= flagSourceCheck
	}
	if e.MACCheck {
		flags |= flagMACCheck
	}
	if e.Direct {
		flags |= flagDirect
	}
	if e.Tracked {
		flags |= flagTracked
	}
	return flags
}

func (e *Endpoint) check() error {
	switch {
	case e.IfIndex <= 0:
		return fmt.Errorf("device index %d", e.IfIndex)
	case e.MTU <= 0:
		return fmt.Errorf("mtu %d", e.MTU)
	case len(e.ContainerMAC) != 6 || len(e.HostMAC) != 6:
		return fmt.Errorf("mac %q, host mac %q", e.ContainerMAC, e.HostMAC)
	}
	return nil
}

func (e *Endpoint) value(s slots) bpf.ZiplineEndpoint {
	v := bpf.ZiplineEndpoint{
		Ifindex: uint32(e.IfIndex), Mtu: uint32(e.MTU), Network: e.Network,
		Mac: [6]byte(e.ContainerMAC), HostMac: [6]byte(e.HostMAC), Flags: e.flags(),
		SlowPathMark: e.SlowPathMark,
	}
	v.Slots.Network, v.Slots.Path = s.network, s.path
	return v
}

func endpointOf(v *bpf.ZiplineEndpoint) Endpoint {
	return Endpoint{
		IfIndex: int(v.Ifindex), MTU: int(v.Mtu), Network: v.Network,
		ContainerMAC: v.Mac[:], HostMAC: v.HostMac[:],
		SourceCheck: v.Flags&flagSourceCheck != 0,
		MACCheck:    v.Flags&flagMACCheck != 0,
		Direct:      v.Flags&flagDirect != 0,
		Tracked:     v.Flags&flagTracked != 0, SlowPathMark: v.SlowPathMark,
	}
}

// device returns the record of the endpoint's device, which keeps the networks
// of an earlier record of the same device. Another MAC is another device: the
// kernel may give an index again.
func (e *Endpoint) device(earlier *bpf.ZiplineDevice, s slots) bpf.ZiplineDevice {
	d := bpf.ZiplineDevice{Mac: [6]byte(e.ContainerMAC), HostMac: [6]byte(e.HostMAC), Flags: e.flags()}
	d.Slots.Network, d.Slots.Path = s.network, s.path
	if earlier != nil && earlier.HostMac == d.HostMac {
		d.Networks = earlier.Networks
	}
	for i, network := range d.Networks {
		if network == e.Network {
			break
		}
		if network == 0 {
			d.Networks[i] = e.Network
			break
		}
	}
	return d
}

// key is the address as the maps have it, IPv4 as ::ffff:a.b.c.d.
func key(addr netip.Addr) (k bpf.ZiplineAddress) {
	b := addr.As16()
	for i := range k.W {
		k.W[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return k
}

func addrOf(k *bpf.ZiplineAddress) netip.Addr {
	var b [16]byte
	for i, w := range k.W {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}
