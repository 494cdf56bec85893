// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"slices"

	"github.com/zipline-cni/zipline/loader"
)

// NetworkSummary is what a node has of a network.
type NetworkSummary struct {
	// Name is "" for devices without an alias.
	Name string
	// DevicePattern matches its host veths, as iptables writes it.
	DevicePattern string
	// Endpoints is how many there are, Up how many of them have a carrier.
	Endpoints, Up int
	// Subnets are those of its endpoints' addresses that have a guard route.
	Subnets []netip.Prefix
	// Forwarding counts the endpoints by how they are carried.
	Forwarding map[Forwarding]int
	// Received is what came to its containers, ByEBPF the part of it that came
	// past the stack (see [Inspected.ByEBPF]), Sent what they sent.
	Received, ByEBPF, Sent Traffic
	// SentBy says what became of the packets sent, as far as it was counted.
	SentBy loader.Path
}

// Networks sums up endpoints by network, in the order of the list. guards are
// the node's subnets ([GuardedSubnets]).
func Networks(list []Inspected, guards []netip.Prefix) []NetworkSummary {
	var networks []NetworkSummary
	places := map[string]int{}
	for i := range list {
		e := &list[i]
		at, ok := places[e.Network]
		if !ok {
			at = len(networks)
			places[e.Network] = at
			n := NetworkSummary{Name: e.Network, Forwarding: map[Forwarding]int{}}
			// The alias has a hash in place of a name that is too long, but the
			// start of the device's name always follows from the whole name.
			n.DevicePattern = e.HostDevice[:min(len(e.HostDevice), len(devicePrefix)+networkChars)] + "+"
			networks = append(networks, n)
		}
		networks[at].add(e, guards)
	}
	return networks
}

func (n *NetworkSummary) add(e *Inspected, guards []netip.Prefix) {
	n.Endpoints++
	if e.Up {
		n.Up++
	}
	n.Forwarding[e.Forwarding]++
	n.Sent.Add(e.FromContainer)
	n.ByEBPF.Add(e.ByEBPF())
	if e.Sent != nil {
		n.SentBy.Carried += e.Sent.Carried
		n.SentBy.Dropped += e.Sent.Dropped
		n.SentBy.Left += e.Sent.Left
	}
	if e.Inside != nil {
		n.Received.Add(e.Inside.Received)
	} else {
		n.Received.Add(e.ToContainer)
	}
	for _, addr := range e.Addresses {
		if subnet := smallest(guards, addr); subnet.IsValid() && !slices.Contains(n.Subnets, subnet) {
			n.Subnets = sortedPrefixes(append(n.Subnets, subnet))
		}
	}
}

// smallest returns the smallest of the subnets that has the address, or the zero
// Prefix.
func smallest(subnets []netip.Prefix, addr netip.Addr) (found netip.Prefix) {
	for _, subnet := range subnets {
		if subnet.Contains(addr) && (!found.IsValid() || subnet.Bits() > found.Bits()) {
			found = subnet
		}
	}
	return found
}
