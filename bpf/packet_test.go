// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Ethernet types.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeVLAN = 0x8100
	typeIPv6 = 0x86dd
)

// packet describes a frame from a container; the mutations of the tests change
// one thing each.
type packet struct {
	from             *peer
	ethDst, ethSrc   net.HardwareAddr
	etherType        uint16
	src, dst         netip.Addr
	protocol         byte
	ttl              byte
	tos              byte   // IPv6: traffic class
	fragment         uint16 // IPv4: flags and offset
	options          []byte // IPv4 options, or IPv6 extension headers
	nextHeader       byte   // IPv6: type of the first of options
	noLength         bool   // as in BIG TCP packets
	sport, dport     uint16
	doff             byte // TCP data offset in words
	payload          []byte
	cut              int // bytes to keep, 0 for all
	raw              func([]byte) []byte
	gsoSize, gsoSegs uint32
	mark             uint32
	layer4           []byte // in place of TCP or UDP
	flags            byte   // of TCP, beside ACK
	noSum            bool   // UDP without a checksum
}

// tcp returns a TCP packet from one peer to another's address.
func tcp(from *peer, to netip.Addr) *packet {
	p := &packet{
		from: from, ethDst: from.host, ethSrc: from.mac, etherType: typeIPv4,
		src: from.v4, dst: to, protocol: unix.IPPROTO_TCP, ttl: 64,
		sport: clientPort, dport: tcpPort, doff: 5, payload: []byte("payload"),
	}
	if to.Is6() {
		p.etherType, p.src = typeIPv6, from.v6
	}
	return p
}

func (p *packet) context() skBuff {
	return skBuff{Ifindex: uint32(p.from.index), GSOSize: p.gsoSize, GSOSegs: p.gsoSegs, Mark: p.mark}
}

func (p *packet) bytes() []byte {
	frame := ethernet(p.ethDst, p.ethSrc, p.etherType)
	l4 := p.l4()
	if p.src.Is4() {
		frame = append(frame, p.ipv4(len(l4))...)
	} else {
		frame = append(frame, p.ipv6(len(l4))...)
	}
	frame = append(frame, l4...)
	if p.raw != nil {
		frame = p.raw(frame)
	}
	if p.cut > 0 {
		frame = frame[:p.cut]
	}
	return frame
}

func ethernet(dst, src net.HardwareAddr, etherType uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte(nil), dst...), src...), etherType)
}

func (p *packet) ipv4(l4 int) []byte {
	h := make([]byte, 20, 60)
	h = append(h, p.options...)
	h[0], h[1] = 0x40|byte(len(h)/4), p.tos
	if !p.noLength {
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)+l4))
	}
	binary.BigEndian.PutUint16(h[6:], p.fragment)
	h[8], h[9] = p.ttl, p.protocol
	copy(h[12:], p.src.AsSlice())
	copy(h[16:], p.dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], ^onesSum(h, 0))
	return h
}

func (p *packet) ipv6(l4 int) []byte {
	h := make([]byte, 40)
	h[0], h[1] = 0x60|p.tos>>4, p.tos<<4
	if !p.noLength {
		binary.BigEndian.PutUint16(h[4:], uint16(len(p.options)+l4))
	}
	h[6], h[7] = p.protocol, p.ttl
	if len(p.options) > 0 {
		h[6] = p.nextHeader
	}
	copy(h[8:], p.src.AsSlice())
	copy(h[24:], p.dst.AsSlice())
	return append(h, p.options...)
}

func (p *packet) l4() []byte {
	if p.layer4 != nil {
		return p.layer4
	}
	h := binary.BigEndian.AppendUint16(nil, p.sport)
	h = binary.BigEndian.AppendUint16(h, p.dport)
	sumAt := 6
	if p.protocol == unix.IPPROTO_UDP {
		h = binary.BigEndian.AppendUint16(h, uint16(8+len(p.payload)))
		h = append(h, 0, 0)
	} else {
		h = append(h, 0, 0, 0, 1, 0, 0, 0, 1, p.doff<<4, 0x10|p.flags, 0xff, 0xff, 0, 0, 0, 0)
		sumAt = 16
	}
	h = append(h, p.payload...)
	if p.noSum {
		return h
	}
	sum := ^onesSum(h, pseudo(p.src, p.dst, p.protocol, len(h)))
	if p.protocol == unix.IPPROTO_UDP && sum == 0 {
		sum = 0xffff // RFC 768: 0 means none
	}
	binary.BigEndian.PutUint16(h[sumAt:], sum)
	return h
}

// pseudo returns the sum of the pseudo header (RFC 793, RFC 8200).
func pseudo(src, dst netip.Addr, protocol byte, length int) uint32 {
	sum := uint32(protocol) + uint32(length)
	return sum + uint32(onesSum(src.AsSlice(), 0)) + uint32(onesSum(dst.AsSlice(), 0))
}

// onesSum is the one's complement sum of RFC 1071, written for clarity alone.
func onesSum(data []byte, sum uint32) uint16 {
	for i, b := range data {
		if i%2 == 0 {
			sum += uint32(b) << 8
		} else {
			sum += uint32(b)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
