// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Arrival is what a packet that a namespace received looked like, as far as two
// ways through the node have to agree about it. It can be compared and be a key.
type Arrival struct {
	Protocol byte
	// Src and Dst have the ports of TCP, UDP, SCTP and protocol 253, in every
	// fragment; of an ICMP echo, its identifier.
	Src, Dst netip.AddrPort
	TTL, TOS byte
	// Kind is what sort of TCP segment this is, or the type, code and MTU of an
	// ICMP message.
	Kind string
	// Length is that of the IP payload; 0 for TCP, which the kernel cuts and joins
	// as it likes, and for ICMP errors.
	Length int
	// Flags are words: df, fragment, options, hop-by-hop, destination-options.
	Flags string
	// Checksum is good, bad or none. It is empty where it cannot be known: in a
	// fragment.
	Checksum string
	// Quoted is the packet that an ICMP error is about.
	Quoted Quote
}

// Quote is the packet inside an ICMP error. The zero value is none.
type Quote struct {
	Protocol, TTL byte
	Src, Dst      netip.AddrPort
}

// String implements [fmt.Stringer].
func (a Arrival) String() string {
	words := []string{protocolName(a.Protocol), fmt.Sprintf("%s > %s", a.Src, a.Dst)}
	if a.Kind != "" {
		words = append(words, a.Kind)
	}
	words = append(words, fmt.Sprintf("ttl %d tos %#02x", a.TTL, a.TOS))
	if a.Length != 0 {
		words = append(words, fmt.Sprintf("length %d", a.Length))
	}
	if a.Flags != "" {
		words = append(words, a.Flags)
	}
	if a.Checksum != "" {
		words = append(words, "checksum "+a.Checksum)
	}
	if q := a.Quoted; q.Src.IsValid() {
		words = append(words, fmt.Sprintf("about %s %s > %s ttl %d", protocolName(q.Protocol), q.Src, q.Dst, q.TTL))
	}
	return strings.Join(words, " ")
}

// HasPort says whether a port of the packet, or of the one it is about, is in [lo, hi).
func (a Arrival) HasPort(lo, hi uint16) bool {
	for _, ap := range []netip.AddrPort{a.Src, a.Dst, a.Quoted.Src, a.Quoted.Dst} {
		if port := ap.Port(); port >= lo && port < hi {
			return true
		}
	}
	return false
}

func protocolName(p byte) string {
	switch p {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return "icmp"
	}
	return fmt.Sprintf("protocol %d", p)
}

// datagram is an IP packet taken apart.
type datagram struct {
	src, dst     netip.Addr
	ttl, tos     byte
	protocol     byte
	flags        []string
	badHeader    bool
	fragmentID   uint32
	first, whole bool // the transport header is here; it is no fragment
	payload      []byte
}

// parseArrival describes a frame. partial says that the sender left the transport
// checksum to a device, so that the field holds the sum of the pseudo header. The
// second value is false for what is not IP.
func parseArrival(frame []byte, partial bool) (Arrival, datagram, bool) {
	if len(frame) < 14 {
		return Arrival{}, datagram{}, false
	}
	d, ok := parseIP(frame[14:])
	if !ok || binary.BigEndian.Uint16(frame[12:]) != map[bool]uint16{true: unix.ETH_P_IP, false: unix.ETH_P_IPV6}[d.src.Is4()] {
		return Arrival{}, d, false
	}
	a := Arrival{Protocol: d.protocol, TTL: d.ttl, TOS: d.tos, Length: len(d.payload)}
	a.Src, a.Dst = netip.AddrPortFrom(d.src, 0), netip.AddrPortFrom(d.dst, 0)
	if d.first {
		a.describeTransport(&d)
	}
	if d.whole {
		a.Checksum = d.transportChecksum(partial)
	}
	if d.badHeader {
		a.Checksum = "bad in the IP header"
	}
	a.Flags = strings.Join(d.flags, " ")
	return a, d, true
}

func (a *Arrival) describeTransport(d *datagram) {
	if src, dst, ok := transportPorts(d.protocol, d.payload); ok {
		a.Src, a.Dst = netip.AddrPortFrom(d.src, src), netip.AddrPortFrom(d.dst, dst)
	}
	switch d.protocol {
	case unix.IPPROTO_TCP:
		if len(d.payload) >= 20 {
			a.Kind, a.Length = tcpKind(d.payload[13]), 0
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if len(d.payload) >= 8 {
			a.describeICMP(d)
		}
	}
}

func (a *Arrival) describeICMP(d *datagram) {
	kind, code := d.payload[0], d.payload[1]
	a.Kind = fmt.Sprintf("type %d code %d", kind, code)
	isError := kind < 128 && d.protocol == unix.IPPROTO_ICMPV6 || d.protocol == unix.IPPROTO_ICMP && (kind == 3 || kind == 11 || kind == 12)
	if !isError {
		return
	}
	a.Length = 0
	switch {
	case d.protocol == unix.IPPROTO_ICMP && kind == 3 && code == 4:
		a.Kind += fmt.Sprintf(" mtu %d", binary.BigEndian.Uint16(d.payload[6:]))
	case d.protocol == unix.IPPROTO_ICMPV6 && kind == 2:
		a.Kind += fmt.Sprintf(" mtu %d", binary.BigEndian.Uint32(d.payload[4:]))
	}
	inner, ok := parseIP(d.payload[8:])
	if !ok {
		return
	}
	src, dst, _ := transportPorts(inner.protocol, inner.payload)
	a.Quoted = Quote{
		Protocol: inner.protocol, TTL: inner.ttl,
		Src: netip.AddrPortFrom(inner.src, src), Dst: netip.AddrPortFrom(inner.dst, dst),
	}
}

func tcpKind(flags byte) string {
	switch {
	case flags&4 != 0:
		return "rst"
	case flags&2 != 0 && flags&16 != 0:
		return "syn ack"
	case flags&2 != 0:
		return "syn"
	case flags&32 != 0:
		return "urgent"
	}
	return "segment"
}

// transportPorts returns the numbers that tell one flow from another.
func transportPorts(protocol byte, payload []byte) (src, dst uint16, ok bool) {
	if len(payload) < 8 {
		return 0, 0, false
	}
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, 253:
		return binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]), true
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if kind := payload[0]; kind == 0 || kind == 8 || kind == 128 || kind == 129 {
			id := binary.BigEndian.Uint16(payload[4:])
			return id, id, true
		}
	}
	return 0, 0, false
}

func (d *datagram) transportChecksum(partial bool) string {
	at := map[byte]int{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: 6, unix.IPPROTO_ICMP: 2, unix.IPPROTO_ICMPV6: 2}[d.protocol]
	if at == 0 || len(d.payload) < at+2 {
		return ""
	}
	field := binary.BigEndian.Uint16(d.payload[at:])
	sum := uint32(0)
	if d.protocol != unix.IPPROTO_ICMP {
		sum = pseudoSum(d.src, d.dst, d.protocol, len(d.payload))
	}
	switch {
	case d.protocol == unix.IPPROTO_UDP && field == 0:
		return "none"
	case partial && field == ^fold(sum), !partial && fold(onesSum(d.payload, sum)) == 0:
		return "good"
	}
	return "bad"
}
