// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// Action is what happens to the source address of a packet that leaves.
type Action uint8

// The actions.
const (
	// Masquerade takes an address of the device that the packet leaves by.
	Masquerade Action = iota
	// MasqueradeFullyRandom also takes a random source port.
	MasqueradeFullyRandom
	// SNAT takes Source.To.
	SNAT
)

// Source is one address of an endpoint whose packets are translated. Packets to
// Subnet, to one of Exempt, to a multicast address and to the limited broadcast
// address keep the address.
type Source struct {
	Address netip.Addr
	Subnet  netip.Prefix // of the network; holds Address
	Action  Action
	To      netip.Addr     // for SNAT: the new source, of the family of Address
	Exempt  []netip.Prefix // of the family of Address
}

// Options are what an endpoint asks for beside translation.
type Options struct {
	// Addresses are all addresses of the endpoint. What the ruleset still holds
	// of one that is neither translated nor isolated is deleted; if it is
	// another endpoint's, Add returns an OwnedError. Optional.
	//
	// Packets from one of these, from a Source or an isolated address are not
	// checked further, unless there is a MAC: all must be routed to the device.
	Addresses []netip.Addr

	// Isolated are the endpoint's addresses, each with the length of its
	// subnet, that neither reach nor are reached by other isolated addresses
	// of that subnet ("portIsolation"). Optional. It needs no Source.
	Isolated []netip.Prefix

	// MAC is the only source MAC that packets from the device may carry
	// ("macspoofchk"). Optional: nil checks nothing. ARP is not covered, as it
	// does not cross an inet table.
	MAC net.HardwareAddr
}

const macLen = 6

func (o Options) validate() error {
	if o.MAC != nil && len(o.MAC) != macLen {
		return fmt.Errorf("MAC %s has not %d bytes", o.MAC, macLen)
	}
	for i, addr := range o.Addresses {
		if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
			return fmt.Errorf("address %s is no plain IPv4 or IPv6 address", addr)
		}
		if slices.Contains(o.Addresses[:i], addr) {
			return fmt.Errorf("address %s is given twice", addr)
		}
	}
	for i, p := range o.Isolated {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("isolated address %s is no plain IPv4 or IPv6 address with a length", p)
		}
		if (Options{Isolated: o.Isolated[:i]}).isolates(p.Addr()) {
			return fmt.Errorf("isolated address %s is given twice", p.Addr())
		}
	}
	return nil
}

func (o Options) isolates(addr netip.Addr) bool {
	return slices.ContainsFunc(o.Isolated, func(p netip.Prefix) bool { return p.Addr() == addr })
}

// validate refuses what would end up in the kernel as something else.
func (s Source) validate() error {
	is4 := s.Address.Is4()
	if !is4 && (!s.Address.Is6() || s.Address.Is4In6() || s.Address.Zone() != "") {
		return fmt.Errorf("source %s is no plain IPv4 or IPv6 address", s.Address)
	}
	if !s.Subnet.IsValid() || !s.Subnet.Contains(s.Address) {
		return fmt.Errorf("source %s is not in its subnet %s", s.Address, s.Subnet)
	}
	if s.Action > SNAT {
		return fmt.Errorf("source %s: unknown action %d", s.Address, s.Action)
	}
	if s.Action == SNAT && (!s.To.IsValid() || s.To.Is4() != is4 || s.To.Is4In6() || s.To.Zone() != "") {
		return fmt.Errorf("source %s: cannot be translated to %s", s.Address, s.To)
	}
	for _, p := range s.Exempt {
		if !p.IsValid() || p.Addr().Is4() != is4 || p.Addr().Is4In6() {
			return fmt.Errorf("source %s: exempt prefix %s is not of its family", s.Address, p)
		}
	}
	return nil
}
