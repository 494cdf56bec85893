// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"net/netip"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader"
)

// Sample is a node at one moment.
type Sample struct {
	// Release of the program that looks.
	Release string
	// Tier is what the loaded programs can do; "none" where nothing is loaded.
	Tier     string
	Counters []loader.Counter
	Maps     []loader.MapStatus
	// Endpoints has their number by network.
	Endpoints map[string]int
	// Uplinks are the indexes of the devices that packets may leave by.
	Uplinks []int
	Leases  []Leases
}

// Leases is how many addresses of a network and family are in a state.
type Leases struct {
	Network, Family, State string
	Count                  int
}

// Lease is what is asked of a lease to count it.
type Lease struct {
	Network, State string
	Address        netip.Addr
}

// stateFree is the state of addresses that nobody has leased.
const stateFree = "free"

// The families, as a label.
const (
	family4 = "ipv4"
	family6 = "ipv6"
)

func family(addr netip.Addr) string {
	if addr.Is4() {
		return family4
	}
	return family6
}

// tierNone is the tier of a node on which nothing is loaded.
const tierNone = "none"

// Read looks at the calling thread's node.
func Read(release string, leases []Lease) (_ *Sample, err error) {
	s := &Sample{Release: release, Tier: tierNone, Endpoints: map[string]int{}}
	endpoints, err := datapath.Endpoints()
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		s.Endpoints[e.Network]++
	}
	subnets, err := datapath.GuardedSubnets()
	if err != nil {
		return nil, err
	}
	s.Leases = count(leases, subnets)
	node, err := datapath.FindNode(endpoints)
	if err != nil || node == nil {
		return s, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	s.Tier = string(loader.TierDirect)
	if node.TracksFlows() {
		s.Tier = string(loader.TierConntrack)
	}
	if s.Counters, err = node.Counters(); err != nil {
		return nil, err
	}
	if s.Maps, err = node.Maps(); err != nil {
		return nil, err
	}
	s.Uplinks, err = node.Uplinks()
	return s, err
}

// count counts leases by network and state, and what is free of the IPv4 subnets
// that a network has leases in: the addresses that are neither the subnet's own,
// its broadcast, the gateway nor leased. A range may allow fewer.
func count(leases []Lease, subnets []netip.Prefix) (counts []Leases) {
	type key struct{ network, family, state string }
	numbers, order := map[key]int{}, []key{}
	add := func(k key, n int) {
		if _, known := numbers[k]; !known {
			order = append(order, k)
		}
		numbers[k] += n
	}
	taken := map[string]map[netip.Prefix]int{}
	for _, l := range leases {
		add(key{l.Network, family(l.Address), l.State}, 1)
		for _, s := range subnets {
			if s.Addr().Is4() && s.Contains(l.Address) {
				if taken[l.Network] == nil {
					taken[l.Network] = map[netip.Prefix]int{}
				}
				taken[l.Network][s]++
			}
		}
	}
	for _, k := range order {
		for s, n := range taken[k.network] {
			const reserved = 3
			add(key{k.network, family4, stateFree}, max(1<<(32-s.Bits())-reserved-n, 0))
		}
		delete(taken, k.network)
	}
	for _, k := range order {
		counts = append(counts, Leases{k.network, k.family, k.state, numbers[k]})
	}
	return counts
}
