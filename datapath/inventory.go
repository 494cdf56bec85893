// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nlink"
)

// Attached is an endpoint as the kernel has it.
type Attached struct {
	// Attachment has what the device's alias tells: a field too long for it is
	// "#" and a hash, and all are empty where an ADD was killed before it set one.
	Attachment
	// HostDevice and Index are of the host veth, HostMAC is its MAC.
	HostDevice string
	Index      int
	HostMAC    net.HardwareAddr
	// Addresses are those that are routed to the host veth by us: what the
	// container has as far as the node is concerned. Sorted.
	Addresses []netip.Addr
	// Up says whether the host veth has a carrier.
	Up bool
	// MTU in bytes.
	MTU int
	// SourceCheck says whether packets with a source address that is not routed
	// to the device are dropped (by its link group).
	SourceCheck bool
	// NetnsID is the id that the node's namespace has for the container's, -1
	// where it has none. PeerIndex is the index of the container's device there.
	NetnsID   int
	PeerIndex int
	// ToContainer is what the host veth sent: packets that the stack delivered.
	// FromContainer is what it received: all that the container sent.
	ToContainer, FromContainer Traffic
}

// Traffic counts packets as the kernel's devices do: a GSO packet counts once.
type Traffic struct {
	Packets, Bytes uint64
}

// Endpoints lists the endpoints of the calling thread's namespace by network,
// container id and device. It costs three dumps, however many there are.
func Endpoints() ([]Attached, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	addresses, err := routedAddresses()
	if err != nil {
		return nil, err
	}
	var list []Attached
	for _, link := range links {
		if attrs := link.Attrs(); isOurs(attrs) {
			a := attachedOf(attrs)
			a.Addresses = addresses[a.Index]
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b Attached) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.HostDevice, b.HostDevice))
	})
	return list, nil
}

// AttachedBy returns the endpoint whose host veth a device is, and false for a
// device that is none of ours.
func AttachedBy(link netlink.Link) (Attached, bool) {
	if !isOurs(link.Attrs()) {
		return Attached{}, false
	}
	return attachedOf(link.Attrs()), true
}

func attachedOf(attrs *netlink.LinkAttrs) Attached {
	a := Attached{
		HostDevice: attrs.Name, Index: attrs.Index, HostMAC: attrs.HardwareAddr, MTU: attrs.MTU,
		NetnsID: attrs.NetNsID, PeerIndex: attrs.ParentIndex,
		Up: attrs.OperState == netlink.OperUp, SourceCheck: attrs.Group == Group,
	}
	a.readTraffic(attrs.Statistics)
	if fields := strings.Split(attrs.Alias, " "); len(fields) == 4 && fields[0] == aliasMark {
		a.Attachment = Attachment{Network: fields[1], ContainerID: fields[2], IfName: fields[3]}
	}
	return a
}

// readTraffic takes what the host veth counted.
func (a *Attached) readTraffic(s *netlink.LinkStatistics) {
	if s == nil {
		return
	}
	a.ToContainer = Traffic{s.TxPackets, s.TxBytes}
	a.FromContainer = Traffic{s.RxPackets, s.RxBytes}
}

// routedAddresses returns the addresses of our host routes by device.
func routedAddresses() (map[int][]netip.Addr, error) {
	found := map[int][]netip.Addr{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		err := nlink.EachRoute(nlink.RouteFilter{Family: family, Protocol: RouteProtocol}, func(r nlink.Route) bool {
			if r.Device != 0 && r.Dst.IsSingleIP() && r.Type == unix.RTN_UNICAST {
				found[r.Device] = append(found[r.Device], r.Dst.Addr())
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	for index, addresses := range found {
		found[index] = sortedAddrs(addresses) // a dump that was repeated lists them twice
	}
	return found, nil
}

// GuardedSubnets returns the subnets of the node's networks, IPv4 first: those
// that have a guard route.
func GuardedSubnets() ([]netip.Prefix, error) {
	var subnets []netip.Prefix
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		found, err := guardedSubnets(family)
		if err != nil {
			return nil, err
		}
		subnets = append(subnets, found...)
	}
	return sortedPrefixes(subnets), nil
}
