// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"net/netip"
	"strings"
)

// addrRange is a run of addresses of one subnet.
type addrRange struct {
	subnet     netip.Prefix
	start, end netip.Addr // both inclusive
	// gateway is never leased from this range. It may lie outside of it.
	gateway netip.Addr
}

// newRange fills in what is not given and refuses what host-local refuses. The
// gateway becomes the first address; the range is the whole subnet without the
// network address and, for IPv4, without the broadcast address. A start or end
// that is given may be one of these. path is the key of the range.
func newRange(raw rawRange, path string) (addrRange, error) {
	subnet, err := raw.Subnet.prefix(path + ".subnet")
	if err != nil {
		return addrRange{}, err
	}
	if subnet.Bits() > subnet.Addr().BitLen()-2 {
		return addrRange{}, &ConfigError{path + ".subnet", fmt.Sprintf("network %s too small to allocate from", subnet)}
	}
	if subnet != subnet.Masked() {
		return addrRange{}, &ConfigError{path + ".subnet", fmt.Sprintf(
			"network %s has host bits set, the network address is %s", subnet, subnet.Masked().Addr())}
	}
	r, err := raw.bounds(path)
	if err != nil {
		return addrRange{}, err
	}
	r.subnet = subnet
	return r, r.complete(path)
}

// bounds returns a range with the addresses that are given.
func (raw *rawRange) bounds(path string) (addrRange, error) {
	var r addrRange
	var err error
	for _, field := range []struct {
		name string
		raw  text
		addr *netip.Addr
	}{
		{"gateway", raw.Gateway, &r.gateway}, {"rangeStart", raw.RangeStart, &r.start}, {"rangeEnd", raw.RangeEnd, &r.end},
	} {
		if *field.addr, err = field.raw.address(path + "." + field.name); err != nil {
			return addrRange{}, err
		}
	}
	return r, nil
}

func (r *addrRange) complete(path string) error {
	first := r.subnet.Addr().Next()
	if !r.gateway.IsValid() {
		r.gateway = first
	}
	if !r.start.IsValid() {
		r.start = first
	}
	if !r.end.IsValid() {
		r.end = lastOf(r.subnet)
	}
	switch {
	case !r.subnet.Contains(r.start):
		return &ConfigError{path + ".rangeStart", fmt.Sprintf("%s not in network %s", r.start, r.subnet)}
	case !r.subnet.Contains(r.end):
		return &ConfigError{path + ".rangeEnd", fmt.Sprintf("%s not in network %s", r.end, r.subnet)}
	case r.end.Less(r.start):
		return &ConfigError{path + ".rangeStart", fmt.Sprintf("%s comes after the range's end %s", r.start, r.end)}
	}
	return nil
}

// lastOf returns the last address of the subnet that can be leased: the last of
// all for IPv6, the one before the broadcast address for IPv4.
func lastOf(subnet netip.Prefix) netip.Addr {
	bytes := subnet.Addr().AsSlice()
	for bit := subnet.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	if addr.Is4() {
		return addr.Prev()
	}
	return addr
}

func (r *addrRange) contains(addr netip.Addr) bool {
	return addr.BitLen() == r.start.BitLen() && !addr.Less(r.start) && !r.end.Less(addr)
}

func (r *addrRange) overlaps(other *addrRange) bool {
	return r.contains(other.start) || other.contains(r.start)
}

// size returns how many addresses can be leased, at most math.MaxUint64.
func (r *addrRange) size() uint64 {
	start, end := r.start.As16(), r.end.As16()
	high := binary.BigEndian.Uint64(end[:8]) - binary.BigEndian.Uint64(start[:8])
	low, startLow := binary.BigEndian.Uint64(end[8:]), binary.BigEndian.Uint64(start[8:])
	if high > 1 || high == 1 && low >= startLow || high == 0 && low-startLow == math.MaxUint64 {
		return math.MaxUint64
	}
	n := low - startLow + 1
	if r.contains(r.gateway) {
		n--
	}
	return n
}

func (r *addrRange) String() string { return r.start.String() + "-" + r.end.String() }

// rangeSet is the ranges that one address of an owner is leased from. They are
// of one family and don't overlap.
type rangeSet []addrRange

func newRangeSet(raw []rawRange, path string) (rangeSet, error) {
	if len(raw) == 0 {
		return nil, &ConfigError{path, "empty range set"}
	}
	set := make(rangeSet, 0, len(raw))
	for i := range raw {
		key := fmt.Sprintf("%s[%d]", path, i)
		r, err := newRange(raw[i], key)
		if err != nil {
			return nil, err
		}
		if i > 0 && r.start.BitLen() != set[0].start.BitLen() {
			return nil, &ConfigError{key + ".subnet", "mixed address families in one range set"}
		}
		for k := range set {
			if set[k].overlaps(&r) {
				return nil, &ConfigError{key, fmt.Sprintf("ranges %s and %s overlap", set[k].String(), r.String())}
			}
		}
		set = append(set, r)
	}
	return set, nil
}

// find returns the range that contains addr, or nil.
func (s rangeSet) find(addr netip.Addr) *addrRange {
	for i := range s {
		if s[i].contains(addr) {
			return &s[i]
		}
	}
	return nil
}

func (s rangeSet) overlaps(other rangeSet) bool {
	for i := range s {
		for k := range other {
			if s[i].overlaps(&other[k]) {
				return true
			}
		}
	}
	return false
}

func (s rangeSet) is4() bool { return s[0].start.Is4() }

// size returns how many addresses can be leased, at most math.MaxUint64.
func (s rangeSet) size() uint64 {
	var sum uint64
	for i := range s {
		n := s[i].size()
		if sum+n < sum {
			return math.MaxUint64
		}
		sum += n
	}
	return sum
}

// after yields every address of the set once, with its range, in the order in
// which host-local tries them: from the one behind last, or from the first where
// last is not in the set, around to where it began. Gateways are left out.
func (s rangeSet) after(last netip.Addr) iter.Seq2[netip.Addr, *addrRange] {
	return func(yield func(netip.Addr, *addrRange) bool) {
		i, addr := 0, s[0].start
		for k := range s {
			if s[k].contains(last) {
				i, addr = s.next(k, last)
				break
			}
		}
		start := addr
		for {
			if addr != s[i].gateway && !yield(addr, &s[i]) {
				return
			}
			if i, addr = s.next(i, addr); addr == start {
				return
			}
		}
	}
}

// next returns the address behind addr, which is in range i, and its range.
func (s rangeSet) next(i int, addr netip.Addr) (int, netip.Addr) {
	if addr != s[i].end {
		return i, addr.Next()
	}
	i = (i + 1) % len(s)
	return i, s[i].start
}

func (s rangeSet) String() string {
	parts := make([]string, len(s))
	for i := range s {
		parts[i] = s[i].String()
	}
	return strings.Join(parts, ",")
}
