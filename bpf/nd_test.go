// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// neighbour describes a neighbour solicitation or advertisement.
type neighbour struct {
	from           *peer
	ethDst, ethSrc net.HardwareAddr
	src, dst       netip.Addr
	hopLimit       byte
	kind, code     byte
	flags          uint32
	target         netip.Addr
	options        []byte
	badSum         bool
	length         int // IPv6 payload length where it is not the truth
	tail           []byte
}

// linkLayer is an option of 8 bytes with a MAC.
func linkLayer(kind byte, mac net.HardwareAddr) []byte {
	return append([]byte{kind, 1}, mac...)
}

func solicitedNode(addr netip.Addr) netip.Addr {
	b := netip.MustParseAddr("ff02::1:ff00:0").As16()
	target := addr.As16()
	copy(b[13:], target[13:])
	return netip.AddrFrom16(b)
}

func multicastMAC(group netip.Addr) net.HardwareAddr {
	b := group.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

func solicit(from *peer, target netip.Addr) *neighbour {
	group := solicitedNode(target)
	return &neighbour{
		from: from, ethDst: multicastMAC(group), ethSrc: from.mac, src: from.v6, dst: group, hopLimit: 255,
		kind: 135, target: target, options: linkLayer(1, from.mac),
	}
}

func (n *neighbour) bytes() []byte {
	msg := []byte{n.kind, n.code, 0, 0}
	msg = binary.BigEndian.AppendUint32(msg, n.flags)
	msg = append(append(msg, n.target.AsSlice()...), n.options...)
	binary.BigEndian.PutUint16(msg[2:], ^onesSum(msg, pseudo(n.src, n.dst, unix.IPPROTO_ICMPV6, len(msg))))
	if n.badSum {
		msg[2] ^= 1
	}
	p := &packet{
		from: n.from, ethDst: n.ethDst, ethSrc: n.ethSrc, etherType: typeIPv6, src: n.src, dst: n.dst,
		protocol: unix.IPPROTO_ICMPV6, ttl: n.hopLimit, layer4: append(msg, n.tail...),
	}
	length := n.length
	if length == 0 {
		length = len(msg)
	}
	p.raw = func(frame []byte) []byte {
		binary.BigEndian.PutUint16(frame[14+4:], uint16(length))
		return frame
	}
	return p.bytes()
}

// answer is the advertisement as RFC 4861, 7.2.4 has it, with the host veth's
// MAC: no router, override, solicited unless nobody in particular asked.
func (n *neighbour) answer() *neighbour {
	reply := &neighbour{
		from: n.from, ethDst: n.ethSrc, ethSrc: n.from.host, src: n.target, dst: n.src, hopLimit: 255,
		kind: 136, flags: 0x60000000, target: n.target, options: linkLayer(2, n.from.host),
	}
	if n.src.IsUnspecified() {
		reply.dst, reply.flags = netip.IPv6LinkLocalAllNodes(), 0x20000000
		reply.ethDst = multicastMAC(reply.dst)
	}
	return reply
}

func probe6(n *neighbour) { n.src, n.options = netip.IPv6Unspecified(), nil }

func TestSolicitationsAreAnsweredForNeighboursOnly(t *testing.T) {
	w := newWorld(t, true)
	const (
		reply, next = ZiplineReasonREASON_ND_REPLY, ZiplineReasonREASON_NEXT_ND
		spoofed     = ZiplineReasonREASON_DROP_SOURCE
		badMAC      = ZiplineReasonREASON_DROP_MAC
	)
	nonce := []byte{14, 1, 1, 2, 3, 4, 5, 6}
	as := func(name string, change func(*neighbour)) func(*neighbour) {
		return func(n *neighbour) {
			*n = *solicit(copyPeer(w.peers[name]), n.target)
			if change != nil {
				change(n)
			}
		}
	}
	target := func(addr netip.Addr) func(*neighbour) {
		return func(n *neighbour) {
			*n = *solicit(n.from, addr)
		}
	}
	linkLocal := func(n *neighbour) { n.src = netip.MustParseAddr("fe80::1") }
	for _, c := range []struct {
		name   string
		change func(*neighbour)
		want   Reason
	}{
		{"a solicitation for a neighbour", func(*neighbour) {}, reply},
		{"from a link-local address", linkLocal, reply},
		{"to the target's own address", func(n *neighbour) { n.dst, n.ethDst = n.target, n.from.host }, reply},
		{"without options", func(n *neighbour) { n.options = nil }, reply},
		{"with a nonce", func(n *neighbour) { n.options = append(n.options, nonce...) }, reply},
		{"with four options", func(n *neighbour) { n.options = bytes.Repeat(nonce, 4) }, reply},
		{"with one option of 32 bytes", func(n *neighbour) { n.options = append([]byte{14, 4}, make([]byte, 30)...) }, reply},
		{"with something behind the packet", func(n *neighbour) { n.tail = make([]byte, 10) }, reply},
		{"a duplicate address probe for somebody else's address", probe6, reply},
		{"a duplicate address probe with a nonce", func(n *neighbour) { probe6(n); n.options = nonce }, reply},
		{"from a device with macs checked", as("pinned", nil), reply},
		{"from a foreign address of an unchecked device", as("unchecked", func(n *neighbour) { n.src = other(n.src, 99) }), reply},
		{"for a neighbour without direct forwarding", target(w.peers["tracked"].v6), reply},

		{"for nobody", target(netip.MustParseAddr("fd00:1::99")), next},
		{"for the own address", target(w.peers["a"].v6), next},
		{"a duplicate address probe for the own address", func(n *neighbour) { target(n.from.v6)(n); probe6(n) }, next},
		{"a duplicate address probe for nobody's address", func(n *neighbour) { target(netip.MustParseAddr("fd00:1::99"))(n); probe6(n) }, next},
		{"for an address in another network", target(w.peers["stranger"].v6), next},
		{"for an ipv4-mapped address", target(netip.AddrFrom16(w.peers["b"].v4.As16())), next},
		{"that came through a router", func(n *neighbour) { n.hopLimit = 254 }, next},
		{"with another code", func(n *neighbour) { n.code = 1 }, next},
		{"with a wrong checksum", func(n *neighbour) { n.badSum = true }, next},
		{"that is too short", func(n *neighbour) { n.options = nil; n.length = 16 }, next},
		{"that is longer than it is", func(n *neighbour) { n.length = 40 }, next},
		{"with an odd length", func(n *neighbour) { n.options = append(n.options, 0, 0, 0, 0) }, next},
		{"with five options", func(n *neighbour) { n.options = bytes.Repeat(nonce, 5) }, next},
		{"with an option of length 0", func(n *neighbour) { n.options[1] = 0 }, next},
		{"with a later option of length 0", func(n *neighbour) { n.options = append(n.options, 14, 0, 0, 0, 0, 0, 0, 0) }, next},
		{"with an option that is cut off", func(n *neighbour) { n.options[1] = 2 }, next},
		{"with a later option that is cut off", func(n *neighbour) { n.options = append(n.options, 14, 9, 0, 0, 0, 0, 0, 0) }, next},
		{"a duplicate address probe with a link-layer address", func(n *neighbour) { n.src = netip.IPv6Unspecified() }, next},
		{"a duplicate address probe to the target itself", func(n *neighbour) { probe6(n); n.dst, n.ethDst = n.target, n.from.host }, next},
		{"to all nodes", func(n *neighbour) { n.dst = netip.IPv6LinkLocalAllNodes() }, next},
		{"to another solicited node", func(n *neighbour) { n.dst = solicitedNode(netip.MustParseAddr("::77")) }, next},
		{"to another host", func(n *neighbour) { n.dst, n.ethDst = w.peers["tracked"].v6, n.from.host }, next},
		{"in a frame for another mac", func(n *neighbour) { n.ethDst = net.HardwareAddr{2, 9, 9, 9, 9, 9} }, next},
		{"from a link-local address of a device that is not published", as("unpublished", linkLocal), next},

		{"from nobody's address", func(n *neighbour) { n.src = other(n.src, 99) }, spoofed},
		{"from a neighbour's address", func(n *neighbour) { n.src = w.peers["b"].v6 }, spoofed},
		{"from an ipv4-mapped address", func(n *neighbour) { n.src = netip.AddrFrom16(n.from.v4.As16()) }, spoofed},
		{"from another mac where macs are checked", as("pinned", func(n *neighbour) { n.ethSrc[5] ^= 1 }), badMAC},
		{"from a link-local address and another mac where macs are checked", as("pinned", func(n *neighbour) { linkLocal(n); n.ethSrc[5] ^= 1 }), badMAC},
		{"an advertisement", func(n *neighbour) { n.kind = 136 }, ZiplineReasonREASON_NEXT_GROUP},
		{"an advertisement from a link-local address", func(n *neighbour) { n.kind = 136; linkLocal(n) }, ZiplineReasonREASON_NEXT_STACK_SOURCE},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := solicit(copyPeer(w.peers["a"]), w.peers["b"].v6)
			c.change(n)
			frame := n.bytes()
			got := w.run(t, frame, skBuff{Ifindex: uint32(n.from.index)})
			length := len(frame)
			want := frame
			if c.want == reply {
				want = n.answer().bytes()
				length = len(want) // counted as it leaves
			}
			w.wantReason(t, got, c.want, length)
			if !bytes.Equal(got.data, want) {
				t.Errorf("frame is now\n%x, want\n%x", got.data, want)
			}
		})
	}
}
