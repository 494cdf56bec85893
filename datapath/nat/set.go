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
}

// family holds the sets of one IP version.
type family struct {
	source, random, snat, exempt *setSpec
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
	ipv4.exempt, ipv6.exempt, checkedDevices, allowedMACs,
}

func newFamily(suffix string, addr nftables.SetDatatype) *family {
	one := []nftables.SetDatatype{addr}
	return &family{
		source: &setSpec{name: "source" + suffix, key: one,
			comment: "endpoint addresses that are translated"},
		random: &setSpec{name: "random" + suffix, key: one,
			comment: "of these: fully random ports"},
		snat: &setSpec{name: "snat" + suffix, key: one, data: &addr,
			comment: "of these: a fixed source address"},
		exempt: &setSpec{name: "exempt" + suffix, key: []nftables.SetDatatype{addr, addr}, interval: true,
			comment: "source subnet . destination that is not translated"},
	}
}

func familyOf(addr netip.Addr) *family {
	if addr.Is4() {
		return ipv4
	}
	return ipv6
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
