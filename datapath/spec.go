// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/zipline-cni/zipline/datapath/nat"
)

// Forwarding names who carries packets between containers.
type Forwarding string

// The values of the configuration key "forwarding".
const (
	// ForwardingAuto is Tracked where the administrator wants netfilter to
	// see container-to-container traffic (net.bridge.bridge-nf-call-iptables
	// or -ip6tables is 1, the switch that a bridge follows), else Direct.
	ForwardingAuto Forwarding = "auto"
	// ForwardingDirect lets two endpoints of one network talk past the stack
	// from the first packet on; all else is as with Tracked.
	ForwardingDirect Forwarding = "direct"
	// ForwardingTracked has netfilter admit every flow; once conntrack calls
	// it established it passes the stack by.
	ForwardingTracked Forwarding = "tracked"
	// ForwardingKernel uses no eBPF at all.
	ForwardingKernel Forwarding = "kernel"
)

// BigTCP says whether the veth pair carries GSO packets above 64 KiB.
type BigTCP string

// The values of the configuration key "bigTCP".
const (
	// BigTCPAuto is on when every uplink is set to take such packets, up to the
	// least of them; otherwise the stack would have to segment them in software.
	BigTCPAuto BigTCP = "auto"
	BigTCPOn   BigTCP = "on"
	BigTCPOff  BigTCP = "off"
)

// Pair describes the veth pair of an attachment.
type Pair struct {
	Attachment
	Netns string           // path of the container's network namespace
	MAC   net.HardwareAddr // of the container's end; nil = derived from the attachment
	// MTU of both ends in bytes. 0 = the kernel's default for veth (1500),
	// or the uplink's where that is smaller.
	MTU         int
	BigTCP      BigTCP
	SourceCheck bool // drop packets whose source is not leased to the endpoint
	Forwarding  Forwarding
}

// Address is one address of a container.
type Address struct {
	Prefix  netip.Prefix // the address with the length of its subnet
	Gateway netip.Addr   // invalid = none
}

// Subnet returns the masked prefix.
func (a Address) Subnet() netip.Prefix { return a.Prefix.Masked() }

// Addr returns the address itself.
func (a Address) Addr() netip.Addr { return a.Prefix.Addr() }

// Route is a route to be made in the container.
type Route struct {
	Dst      netip.Prefix
	Gateway  netip.Addr // invalid = the first gateway of the family, else on link
	MTU      int
	AdvMSS   int
	Priority int
	Table    *int
	Scope    *int
}

// Spec describes the endpoint on top of its pair.
type Spec struct {
	Pair
	// Segment names the L2 segment that the network stands for (the value
	// of "bridge"). Endpoints of one segment and subnet are neighbours.
	Segment   string
	Addresses []Address
	Routes    []Route
	// IsGateway puts the gateway addresses on the host veth and switches
	// forwarding on in the node.
	IsGateway  bool
	DAD        bool        // duplicate address detection in the container
	Isolated   bool        // no traffic with other isolated endpoints of the subnet ("portIsolation")
	MACCheck   bool        // drop packets with another source MAC ("macspoofchk")
	Masquerade *Masquerade // nil = containers keep their addresses
	// Uplinks names the devices, or globs of their names, by which established
	// flows enter and leave past the stack. Empty = those of the default routes.
	Uplinks []string
	// SlowPathMark has the bits of the conntrack mark that keep a flow in the stack.
	SlowPathMark uint32
}

// Masquerade says how packets that leave the network are translated.
type Masquerade struct {
	FullyRandom bool
	Egress      []netip.Addr   // SNAT to this address of its family instead
	Exempt      []netip.Prefix // destinations that see the container's address
}

// network returns the identity of the L2 neighbourhood of an address.
func (s *Spec) network(a Address) uint64 {
	sum := sha256.Sum256([]byte(s.Segment + "\x00" + a.Subnet().String()))
	return binary.BigEndian.Uint64(sum[:])
}

// families tells which IP families the addresses are of.
func (s *Spec) families() (has4, has6 bool) {
	for _, a := range s.Addresses {
		has4 = has4 || a.Addr().Is4()
		has6 = has6 || a.Addr().Is6()
	}
	return has4, has6
}

// sources translates the masquerade part of the spec for the ruleset.
func (s *Spec) sources() []nat.Source {
	if s.Masquerade == nil {
		return nil
	}
	sources := make([]nat.Source, 0, len(s.Addresses))
	for _, a := range s.Addresses {
		source := nat.Source{Address: a.Addr(), Subnet: a.Subnet(), Action: nat.Masquerade}
		if s.Masquerade.FullyRandom {
			source.Action = nat.MasqueradeFullyRandom
		}
		for _, egress := range s.Masquerade.Egress {
			if egress.Is4() == a.Addr().Is4() {
				source.Action, source.To = nat.SNAT, egress
			}
		}
		for _, exempt := range s.Masquerade.Exempt {
			if exempt.Addr().Is4() == a.Addr().Is4() {
				source.Exempt = append(source.Exempt, exempt)
			}
		}
		sources = append(sources, source)
	}
	return sources
}

// Finding is one thing that CHECK found wrong.
type Finding struct {
	Object string // what it is about: "device zl…", "route …", "sysctl …"
	Wrong  string // what is wrong with it
	Mend   string // how to mend it
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s; to mend: %s", f.Object, f.Wrong, f.Mend)
}
