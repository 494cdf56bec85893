// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"

	"github.com/google/nftables"
)

// setSpec is a named set or map of the table.
type setSpec struct {
	name     string
	comment  string
	key      []nftables.SetDatatype
	data     *nftables.SetDatatype // nil: a set
	interval bool
	of       *setSpec // of an interval set: the addresses that need its elements
}

// family holds the sets of one IP version.
type family struct {
	source, random, snat, exempt *setSpec
	isolated, segment            *setSpec
	address                      *setSpec
}

// The writers of elements are add.go, remove.go and collect.go; the readers are
// the rules in chain.go.
var (
	ipv4 = newFamily("4", nftables.TypeIPAddr)
	ipv6 = newFamily("6", nftables.TypeIP6Addr)

	checkedDevices = &setSpec{
		name:    "macspoofchk",
		comment: "endpoints held to one MAC",
		key:     []nftables.SetDatatype{nftables.TypeIFName},
	}
	allowedMACs = &setSpec{
		name:    "mac",
		comment: "endpoint . its MAC",
		key:     []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeEtherAddr},
	}
)

// sets are all sets of the table in the order of the listing.
var sets = []*setSpec{
	ipv4.source, ipv6.source, ipv4.random, ipv6.random, ipv4.snat, ipv6.snat,
	ipv4.exempt, ipv6.exempt, ipv4.isolated, ipv6.isolated, ipv4.segment, ipv6.segment,
	ipv4.address, ipv6.address, checkedDevices, allowedMACs,
}

// subnetSets hold rectangles, which belong to a subnet and to no endpoint.
var subnetSets = []*setSpec{ipv4.exempt, ipv6.exempt, ipv4.segment, ipv6.segment}

func newFamily(suffix string, addr nftables.SetDatatype) *family {
	one, pair := []nftables.SetDatatype{addr}, []nftables.SetDatatype{addr, addr}
	source := &setSpec{name: "source" + suffix, key: one,
		comment: "endpoint addresses that are translated"}
	isolated := &setSpec{name: "isolated" + suffix, key: one,
		comment: "endpoint addresses that do not reach each other within a subnet"}
	return &family{
		source: source, isolated: isolated,
		address: &setSpec{name: "address" + suffix, key: []nftables.SetDatatype{nftables.TypeIFName, addr},
			comment: "endpoint . its address, unless held to one MAC"},
		random: &setSpec{name: "random" + suffix, key: one,
			comment: "of these: fully random ports"},
		snat: &setSpec{name: "snat" + suffix, key: one, data: &addr,
			comment: "of these: a fixed source address"},
		exempt: &setSpec{name: "exempt" + suffix, key: pair, interval: true, of: source,
			comment: "source subnet . destination that is not translated"},
		segment: &setSpec{name: "segment" + suffix, key: pair, interval: true, of: isolated,
			comment: "subnet . the same subnet, of isolated endpoints"},
	}
}

func familyOf(addr netip.Addr) *family {
	if addr.Is4() {
		return ipv4
	}
	return ipv6
}

// address returns the address that the element is about, which ends its key; the
// zero Addr in a set without addresses.
func (s *setSpec) address(el element) netip.Addr {
	last := s.key[len(s.key)-1]
	if last.Name != nftables.TypeIPAddr.Name && last.Name != nftables.TypeIP6Addr.Name || len(el.key) < int(last.Bytes) {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(el.key[len(el.key)-int(last.Bytes):])
	return addr
}

// keyType returns the type of the whole key.
func (s *setSpec) keyType() nftables.SetDatatype {
	return nftables.MustConcatSetType(s.key...)
}

// flags returns the NFTA_SET_FLAGS of the set.
func (s *setSpec) flags() uint32 {
	var flags uint32
	if s.interval {
		flags |= flagInterval
	}
	if s.data != nil {
		flags |= flagMap
	}
	if len(s.key) > 1 && s.interval {
		flags |= flagConcat
	}
	return flags
}
