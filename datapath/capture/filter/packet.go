// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
)

// Where things are in an Ethernet frame.
const (
	atType       = 12
	atIP         = 14
	atProtocol   = atIP + 9
	atFragment   = atIP + 6
	atNextHeader = atIP + 6
	atIPv6Data   = atIP + 40
)

const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeRARP = 0x8035
	typeIPv6 = 0x86dd
)

// direction says which end is meant.
type direction int

const (
	either direction = iota
	source
	destination
	both
)

func load(at, size uint32) []bpf.Instruction {
	return []bpf.Instruction{bpf.LoadAbsolute{Off: at, Size: int(size)}}
}

func equal(at, size, value uint32) node {
	return test{load: load(at, size), cond: bpf.JumpEqual, value: value}
}

func etherType(t uint32) node { return equal(atType, 2, t) }

func anyOf(nodes ...node) node {
	n := nodes[0]
	for _, next := range nodes[1:] {
		n = or{n, next}
	}
	return n
}

func allOf(nodes ...node) node {
	n := nodes[0]
	for _, next := range nodes[1:] {
		n = and{n, next}
	}
	return n
}

// end combines what holds for the source with what holds for the destination.
func (d direction) end(src, dst node) node {
	switch d {
	case source:
		return src
	case destination:
		return dst
	case both:
		return and{src, dst}
	default:
		return or{src, dst}
	}
}

// protocol4 and protocol6 are IP packets of a protocol. Behind one fragment
// header the protocol is still found, as in tcpdump.
func protocol4(p uint32) node { return and{etherType(typeIPv4), equal(atProtocol, 1, p)} }

func protocol6(p uint32) node {
	behind := and{equal(atNextHeader, 1, 44), equal(atIPv6Data, 1, p)}
	return and{etherType(typeIPv6), or{equal(atNextHeader, 1, p), behind}}
}

// prefix is an address at a place of the packet.
func prefix(at uint32, p netip.Prefix) node {
	var n node
	bytes := p.Addr().AsSlice()
	for i := 0; i < len(bytes); i += 4 {
		bits := min(max(p.Bits()-8*i, 0), 32)
		if bits == 0 && i > 0 {
			break
		}
		mask := uint32(uint64(0xffffffff) << (32 - bits))
		word := node(test{load: load(at+uint32(i), 4), mask: mask, cond: bpf.JumpEqual, value: binary.BigEndian.Uint32(bytes[i:]) & mask})
		if bits == 0 {
			// A mask of 0 would mean none: whatever is there is 0 or greater.
			word = test{load: load(at+uint32(i), 4), cond: bpf.JumpGreaterOrEqual}
		}
		if n == nil {
			n = word
		} else {
			n = and{n, word}
		}
	}
	return n
}

// addresses is packets from or to a prefix; protocol is "", ip, ip6 or arp.
func addresses(protocol string, d direction, p netip.Prefix) node {
	if p.Addr().Is6() {
		return and{etherType(typeIPv6), d.end(prefix(atIP+8, p), prefix(atIP+24, p))}
	}
	ip := and{etherType(typeIPv4), d.end(prefix(atIP+12, p), prefix(atIP+16, p))}
	inARP := d.end(prefix(atIP+14, p), prefix(atIP+24, p))
	switch protocol {
	case "ip":
		return ip
	case "arp":
		return and{etherType(typeARP), inARP}
	}
	return anyOf(ip, and{etherType(typeARP), inARP}, and{etherType(typeRARP), inARP})
}

// ports is TCP, UDP or SCTP packets from or to ports first to last.
func ports(protocols []uint32, d direction, first, last uint32) node {
	var in4, in6 []node
	for _, p := range protocols {
		in4 = append(in4, equal(atProtocol, 1, p))
		in6 = append(in6, equal(atNextHeader, 1, p))
	}
	within := func(at []bpf.Instruction) node {
		if first == last {
			return test{load: at, cond: bpf.JumpEqual, value: first}
		}
		return and{test{load: at, cond: bpf.JumpGreaterOrEqual, value: first}, not{test{load: at, cond: bpf.JumpGreaterThan, value: last}}}
	}
	behind4 := func(at uint32) node {
		return within([]bpf.Instruction{bpf.LoadMemShift{Off: atIP}, bpf.LoadIndirect{Off: atIP + at, Size: 2}})
	}
	whole := not{test{load: load(atFragment, 2), cond: bpf.JumpBitsSet, value: 0x1fff}}
	return or{
		allOf(etherType(typeIPv6), anyOf(in6...), d.end(within(load(atIPv6Data, 2)), within(load(atIPv6Data+2, 2)))),
		allOf(etherType(typeIPv4), anyOf(in4...), whole, d.end(behind4(0), behind4(2))),
	}
}

// mac is frames from or to a MAC.
func mac(d direction, m net.HardwareAddr) node {
	at := func(offset uint32) node {
		return and{
			equal(offset+2, 4, binary.BigEndian.Uint32(m[2:])),
			equal(offset, 2, uint32(binary.BigEndian.Uint16(m))),
		}
	}
	return d.end(at(6), at(0))
}

// length compares the frame's.
func length(cond bpf.JumpTest, value uint32) node {
	return test{load: []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtLen}}, cond: cond, value: value}
}
