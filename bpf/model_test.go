// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The rules once more, written from the design and not from the C: what a
// program may do with a frame that device sent, when conntrack knows no flow.

// ruling is what the rules say: carry it to a peer, answer it, drop it, or none
// of these.
type ruling struct {
	carry  *peer
	answer bool
	drop   bool
}

// rules is a frame with the world it is judged in.
type rules struct {
	w      *world
	device *peer
	frame  []byte
	gso    int
}

func (r *rules) judge() ruling {
	switch binary.BigEndian.Uint16(r.frame[12:]) {
	case typeIPv4:
		return r.ipv4(r.frame[14:])
	case typeIPv6:
		return r.ipv6(r.frame[14:])
	case typeARP:
		return r.arp(r.frame[14:])
	}
	return ruling{}
}

// published says whether the device is known to the maps.
func (r *rules) published() bool { return r.device.name != "unpublished" }

// leased says whether the address is the sending device's.
func (r *rules) leased(addr netip.Addr) bool {
	return r.published() && (addr == r.device.v4 || addr == r.device.v6 || addr == r.device.extra)
}

// spoofed says whether the sender must be stopped.
func (r *rules) spoofed(addr netip.Addr) bool {
	if r.wrongMAC(r.frame[6:12]) {
		return true
	}
	return !r.leased(addr) && (!r.published() || r.device.flags&sourceCheck != 0)
}

func (r *rules) wrongMAC(mac net.HardwareAddr) bool {
	return r.published() && r.device.flags&macCheck != 0 && !bytes.Equal(mac, r.device.mac)
}

// toHost says whether the frame is addressed to the host veth.
func (r *rules) toHost() bool { return bytes.Equal(r.frame[:6], r.device.host) }

// toUs says whether the host veth takes the frame at all.
func (r *rules) toUs() bool { return r.toHost() || r.frame[0]&1 == 1 }

// neighbour returns the holder of an address that the device may resolve.
func (r *rules) neighbour(addr netip.Addr) *peer {
	holder := r.w.holder(addr)
	if holder == nil || !r.published() || holder.index == r.device.index {
		return nil
	}
	if holder.net4 == 0 || holder.net4 != r.device.net4 || holder.net6 != r.device.net6 {
		return nil
	}
	return holder
}

// shortcut returns whom a packet to the address may be carried to directly.
func (r *rules) shortcut(src, dst netip.Addr, largest int) *peer {
	to := r.neighbour(dst)
	if to == nil || !r.leased(src) || !r.toHost() || r.device.flags&to.flags&direct == 0 || largest > int(to.mtu) {
		return nil
	}
	return to
}

func (r *rules) ipv4(ip []byte) ruling {
	if len(ip) < 20 || ip[0]>>4 != 4 {
		return ruling{}
	}
	src, dst := netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	if src.IsUnspecified() {
		return ruling{drop: r.wrongMAC(r.frame[6:12])}
	}
	if r.spoofed(src) {
		return ruling{drop: true}
	}
	fragment := binary.BigEndian.Uint16(ip[6:]) & 0x3fff
	if ip[0] != 0x45 || fragment != 0 || ip[8] == 0 {
		return ruling{}
	}
	largest, ok := r.largest(ip, 20, 20, ip[9])
	if !ok {
		return ruling{}
	}
	return ruling{carry: r.shortcut(src, dst, largest)}
}

// largest returns the length of the largest IP packet that goes on the wire.
func (r *rules) largest(ip []byte, header, l4 int, protocol byte) (int, bool) {
	if protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_UDP || len(ip) < l4+4 {
		return 0, false
	}
	switch {
	case protocol == unix.IPPROTO_TCP && (len(ip) < l4+14 || ip[l4+12]>>4 < 5):
		return 0, false
	case r.gso == 0:
		return len(ip), true
	case protocol == unix.IPPROTO_UDP:
		return header + 8 + r.gso, true
	default:
		return header + int(ip[l4+12]>>4)*4 + r.gso, true
	}
}

func (r *rules) ipv6(ip []byte) ruling {
	if len(ip) < 40 || ip[0]>>4 != 6 {
		return ruling{}
	}
	src, dst := netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
	if src.IsUnspecified() || src.IsLinkLocalUnicast() {
		if r.wrongMAC(r.frame[6:12]) {
			return ruling{drop: true}
		}
	} else if r.spoofed(src) {
		return ruling{drop: true}
	}
	if ip[6] == unix.IPPROTO_ICMPV6 {
		return ruling{answer: r.solicitation(ip, src, dst)}
	}
	protocol, l4 := ip[6], 40
	if protocol == unix.IPPROTO_HOPOPTS && r.gso > 0 && len(ip) >= 48 &&
		ip[4] == 0 && ip[5] == 0 && bytes.Equal(ip[40:44], []byte{unix.IPPROTO_TCP, 0, 194, 4}) {
		protocol, l4 = unix.IPPROTO_TCP, 48
	}
	largest, ok := r.largest(ip, 40, l4, protocol)
	if !ok || ip[7] == 0 {
		return ruling{}
	}
	return ruling{carry: r.shortcut(src, dst, largest)}
}

// solicitation says whether this is one that is answered.
func (r *rules) solicitation(ip []byte, src, dst netip.Addr) bool {
	length := int(binary.BigEndian.Uint16(ip[4:]))
	if length < 24 || length > 56 || length%8 != 0 || len(ip) < 40+length || ip[7] != 255 || r.gso != 0 {
		return false
	}
	msg := ip[40 : 40+length]
	target := netip.AddrFrom16([16]byte(msg[8:]))
	if msg[0] != 135 || msg[1] != 0 || onesSum(msg, pseudo(src, dst, unix.IPPROTO_ICMPV6, length)) != 0xffff {
		return false
	}
	for options := msg[24:]; len(options) > 0; options = options[int(options[1])*8:] {
		if options[1] == 0 || int(options[1])*8 > len(options) {
			return false
		}
		if src.IsUnspecified() && options[0] == 1 {
			return false
		}
	}
	if dst != solicitedNode(target) && (dst != target || src.IsUnspecified()) {
		return false
	}
	return r.toUs() && r.neighbour(target) != nil
}

func (r *rules) arp(a []byte) ruling {
	if len(a) < 28 || !bytes.Equal(a[:6], []byte{0, 1, 8, 0, 6, 4}) {
		return ruling{}
	}
	sender, target := netip.AddrFrom4([4]byte(a[14:])), netip.AddrFrom4([4]byte(a[24:]))
	switch {
	case sender.IsUnspecified() && r.wrongMAC(r.frame[6:12]),
		!sender.IsUnspecified() && r.spoofed(sender),
		r.leased(sender) && r.wrongMAC(net.HardwareAddr(a[8:14])):
		return ruling{drop: true}
	}
	return ruling{answer: a[6] == 0 && a[7] == 1 && r.toUs() && r.neighbour(target) != nil}
}
