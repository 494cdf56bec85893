// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/internal/nlink"
	"github.com/zipline-cni/zipline/loader"
)

// Evidence is what is known of endpoints besides the kernel's state.
type Evidence struct {
	// Specs says what each endpoint should be, by host veth (libcni's cache). An
	// endpoint without one is mended by that of another of its network.
	Specs map[string]*Spec
	// Leased are the attachments that hold leases, by host veth, with the
	// addresses.
	Leased map[string]Leased
}

// Leased is an attachment that holds leases.
type Leased struct {
	Attachment
	Addresses []netip.Addr
}

// specOf returns what an endpoint should be: as ADD was told, or as another
// endpoint of its network. Nil where neither is known.
func (e Evidence) specOf(link netlink.Link) (*Spec, error) {
	spec := e.Specs[link.Attrs().Name]
	if spec == nil {
		var err error
		if spec, err = e.specOfSibling(link); spec == nil || err != nil {
			return nil, err
		}
	}
	own := *spec
	// A chained plugin (tuning) may have given the container another MAC.
	if mac, _ := containerEnd(link.Attrs()); mac != nil && !own.MACCheck || own.MAC == nil {
		own.MAC = mac
	}
	if own.MAC == nil {
		own.MAC = own.containerMAC()
	}
	return &own, nil
}

// wantsPrograms says whether an endpoint's configuration asks for programs or,
// where it is not known, that of any endpoint of its network.
func (e Evidence) wantsPrograms(a *Attached) bool {
	if spec := e.Specs[a.HostDevice]; spec != nil {
		return spec.accelerated()
	}
	for _, sibling := range e.Specs {
		if sibling.Network == a.Network && sibling.accelerated() {
			return true
		}
	}
	return false
}

// attachmentOf returns whose device this is: by its leases or its alias, where
// the device's name follows from it. An alias with a shortened field names no one
// for sure.
func (e Evidence) attachmentOf(attrs *netlink.LinkAttrs) (Attachment, bool) {
	attachment := attachedOf(attrs).Attachment
	if leased, ok := e.Leased[attrs.Name]; ok {
		attachment = leased.Attachment
	}
	return attachment, attachment.Device() == attrs.Name
}

// specOfSibling takes what belongs to the network from another endpoint of it,
// and what belongs to the endpoint from the kernel and the leases. Nil where no
// configuration of the network is known.
func (e Evidence) specOfSibling(link netlink.Link) (*Spec, error) {
	attachment, known := e.attachmentOf(link.Attrs())
	if !known {
		return nil, nil
	}
	addresses, err := e.addressesOf(link.Attrs())
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(e.Specs)) {
		sibling := e.Specs[name]
		if sibling.Network != attachment.Network {
			continue
		}
		own := *sibling
		own.Attachment, own.Netns, own.MAC = attachment, "", nil
		own.Addresses = inSubnets(addresses, sibling.Addresses)
		if len(own.Addresses) > 0 {
			return &own, nil
		}
	}
	return nil, nil
}

// addressesOf returns the addresses that an endpoint holds: by its routes, by the
// map entries of its device, or by its leases. What the container has given itself
// does not count: it may take any address.
func (e Evidence) addressesOf(attrs *netlink.LinkAttrs) ([]netip.Addr, error) {
	addresses, err := addressesOf(attrs.Index)
	if err != nil {
		return nil, err
	}
	addresses = append(addresses, e.Leased[attrs.Name].Addresses...)
	node, err := loader.Find(attrs.Index)
	if errors.Is(err, loader.ErrNotLoaded) {
		return sortedAddrs(addresses), nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = node.Close() }() // only read from
	published, err := node.AddressesOf(attrs.Index)
	return sortedAddrs(append(addresses, published...)), err
}

// inSubnets gives addresses the subnet and gateway that others of the network have.
func inSubnets(addresses []netip.Addr, others []Address) []Address {
	var list []Address
	for _, addr := range addresses {
		for _, other := range others {
			if other.Subnet().Contains(addr) {
				list = append(list, Address{Prefix: netip.PrefixFrom(addr, other.Prefix.Bits()), Gateway: other.Gateway})
				break
			}
		}
	}
	return list
}

// containerEnd returns the MAC and MTU of the other end of a host veth, which the
// kernel tells without that anybody enters the container; nil where it does not.
func containerEnd(attrs *netlink.LinkAttrs) (net.HardwareAddr, int) {
	if attrs.NetNsID < 0 || attrs.ParentIndex <= 0 {
		return nil, 0
	}
	end, err := nlink.LinkIn(attrs.NetNsID, attrs.ParentIndex)
	if err != nil {
		return nil, 0
	}
	return end.HardwareAddr, end.MTU
}
