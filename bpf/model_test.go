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
// program may do with a frame that a device received.

// ruling is what the rules say: carry it to a peer as it is, carry it as
// conntrack says, answer it, drop it, or none of these.
type ruling struct {
	direct *peer
	flow   *passage
	answer bool
	drop   bool
}

// rules is a frame with the world it is judged in.
type rules struct {
	w      *world
	device *peer
	frame  []byte
	gso    int
	// flows are all that conntrack knows.
	flows []*entry
}

func (r *rules) judge() ruling {
	ip := r.frame[14:]
	switch etherType := binary.BigEndian.Uint16(r.frame[12:]); {
	case etherType == typeIPv4 && r.fromUplink():
		return r.forward(r.plain4(ip))
	case etherType == typeIPv6 && r.fromUplink():
		return r.forward(r.plain6(ip))
	case etherType == typeIPv4:
		return r.ipv4(ip)
	case etherType == typeIPv6:
		return r.ipv6(ip)
	case etherType == typeARP && !r.fromUplink():
		return r.arp(ip)
	}
	return ruling{}
}

// fromUplink says whether the frame comes from outside.
func (r *rules) fromUplink() bool { return r.device.name == "uplink" }

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

// plain is a whole TCP or UDP packet to one receiver, with no options.
type plain struct {
	src, dst             netip.AddrPort
	protocol, ttl, flags byte
	l4                   int // offset in the IP packet
	largest              int // length of the largest IP packet that goes on the wire
}

// forward is what the rules say of a packet that may come from where it says.
func (r *rules) forward(p *plain) ruling {
	if p == nil || !r.toHost() {
		return ruling{}
	}
	if flow := r.known(p); flow != nil {
		if !r.carries(flow, p) {
			return ruling{}
		}
		return ruling{flow: flow}
	}
	if r.fromUplink() {
		return ruling{}
	}
	return ruling{direct: r.shortcut(p)}
}

// shortcut returns whom a packet that conntrack does not know may be carried to.
func (r *rules) shortcut(p *plain) *peer {
	to := r.neighbour(p.dst.Addr())
	if to == nil || !r.leased(p.src.Addr()) || r.device.flags&to.flags&direct == 0 || p.largest > int(to.mtu) {
		return nil
	}
	return to
}

func (r *rules) ipv4(ip []byte) ruling {
	if len(ip) < 20 || ip[0]>>4 != 4 {
		return ruling{}
	}
	src := netip.AddrFrom4([4]byte(ip[12:]))
	if src.IsUnspecified() {
		return ruling{drop: r.wrongMAC(r.frame[6:12])}
	}
	if r.spoofed(src) {
		return ruling{drop: true}
	}
	return r.forward(r.plain4(ip))
}

// plain4 returns nil for what is not plain, as plain6 does.
func (r *rules) plain4(ip []byte) *plain {
	if len(ip) < 20 || ip[0] != 0x45 || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 || ip[8] == 0 {
		return nil
	}
	src, dst := netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	return r.plain(ip, src, dst, &plain{protocol: ip[9], ttl: ip[8], l4: 20}, 20)
}

// plain reads TCP or UDP into p, of which protocol and offset are known.
func (r *rules) plain(ip []byte, src, dst netip.Addr, p *plain, header int) *plain {
	tcp := p.protocol == unix.IPPROTO_TCP
	if !tcp && p.protocol != unix.IPPROTO_UDP || len(ip) < p.l4+4 || tcp && len(ip) < p.l4+14 {
		return nil
	}
	l4 := ip[p.l4:]
	p.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(l4))
	p.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(l4[2:]))
	length := 8
	if tcp {
		p.flags, length = l4[13], int(l4[12]>>4)*4
		if length < 20 {
			return nil
		}
	}
	if p.largest = len(ip); r.gso > 0 {
		p.largest = header + length + r.gso
	}
	return p
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
	return r.forward(r.plain6(ip))
}

func (r *rules) plain6(ip []byte) *plain {
	if len(ip) < 40 || ip[0]>>4 != 6 || ip[7] == 0 {
		return nil
	}
	src, dst := netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
	p := &plain{protocol: ip[6], ttl: ip[7], l4: 40}
	if p.protocol == unix.IPPROTO_HOPOPTS && r.gso > 0 && len(ip) >= 48 &&
		ip[4] == 0 && ip[5] == 0 && bytes.Equal(ip[40:44], []byte{unix.IPPROTO_TCP, 0, 194, 4}) {
		p.protocol, p.l4 = unix.IPPROTO_TCP, 48
	}
	return r.plain(ip, src, dst, p, 40)
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
