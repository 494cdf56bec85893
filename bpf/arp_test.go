// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
)

// arp describes an ARP packet from a container.
type arp struct {
	from                 *peer
	ethDst, ethSrc       net.HardwareAddr
	hardware, protocol   uint16
	hardwareLen, addrLen byte
	op                   uint16
	sha, tha             net.HardwareAddr
	sip, tip             netip.Addr
	tail                 []byte
	cut                  int
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func whoHas(from *peer, target netip.Addr) *arp {
	return &arp{
		from: from, ethDst: broadcast, ethSrc: from.mac, hardware: 1, protocol: typeIPv4, hardwareLen: 6, addrLen: 4,
		op: 1, sha: from.mac, tha: make(net.HardwareAddr, 6), sip: from.v4, tip: target,
	}
}

func (a *arp) bytes() []byte {
	b := ethernet(a.ethDst, a.ethSrc, typeARP)
	b = binary.BigEndian.AppendUint16(b, a.hardware)
	b = binary.BigEndian.AppendUint16(b, a.protocol)
	b = append(b, a.hardwareLen, a.addrLen)
	b = binary.BigEndian.AppendUint16(b, a.op)
	b = append(append(b, a.sha...), a.sip.AsSlice()...)
	b = append(append(b, a.tha...), a.tip.AsSlice()...)
	b = append(b, a.tail...)
	if a.cut > 0 {
		b = b[:a.cut]
	}
	return b
}

func TestARPIsAnsweredForNeighboursOnly(t *testing.T) {
	w := newWorld(t, true)
	const (
		reply, next = ZiplineReasonREASON_ARP_REPLY, ZiplineReasonREASON_NEXT_ARP
		spoofed     = ZiplineReasonREASON_DROP_ARP
		badMAC      = ZiplineReasonREASON_DROP_MAC
	)
	as := func(name string, change func(*arp)) func(*arp) {
		return func(a *arp) {
			*a = *whoHas(copyPeer(w.peers[name]), a.tip)
			if change != nil {
				change(a)
			}
		}
	}
	probe := func(a *arp) { a.sip = netip.IPv4Unspecified() }
	for _, c := range []struct {
		name   string
		change func(*arp)
		want   Reason
	}{
		{"a request for a neighbour", func(*arp) {}, reply},
		{"a unicast request to the host veth", func(a *arp) { a.ethDst = a.from.host }, reply},
		{"a request with padding", func(a *arp) { a.tail = make([]byte, 18) }, reply},
		{"a request for a neighbour that does not forward directly", func(a *arp) { a.tip = w.peers["tracked"].v4 }, reply},
		{"a probe for an address of somebody else", probe, reply},
		{"a request from a device with macs checked", as("pinned", nil), reply},
		{"a request from a foreign address of an unchecked device", as("unchecked", func(a *arp) { a.sip = other(a.sip, 99) }), reply},

		{"a request for nobody", func(a *arp) { a.tip = other(a.tip, 99) }, next},
		{"a request for the own address", func(a *arp) { a.tip = a.sip }, next},
		{"a request for the second own address", func(a *arp) { a.tip = a.from.extra }, next},
		{"a probe for the own address", func(a *arp) { probe(a); a.tip = a.from.v4 }, next},
		{"a probe for nobody's address", func(a *arp) { probe(a); a.tip = other(a.tip, 99) }, next},
		{"a request for an address in another network", func(a *arp) { a.tip = w.peers["stranger"].v4 }, next},
		{"a request for an address of no network", as("lonely", func(a *arp) { a.tip = w.peers["lonely too"].v4 }), next},
		{"a request to another mac", func(a *arp) { a.ethDst = net.HardwareAddr{2, 9, 9, 9, 9, 9} }, next},
		{"a reply", func(a *arp) { a.op = 2 }, next},
		{"a reverse request", func(a *arp) { a.op = 3 }, next},
		{"another hardware type", func(a *arp) { a.hardware = 6 }, next},
		{"another protocol type", func(a *arp) { a.protocol = typeIPv6 }, next},
		{"another hardware length", func(a *arp) { a.hardwareLen = 8 }, next},
		{"another address length", func(a *arp) { a.addrLen = 16 }, next},
		{"a probe from a device that is not published", as("unpublished", probe), next},
		{"a packet that is cut off", func(a *arp) { a.cut = 41 }, ZiplineReasonREASON_NEXT_MALFORMED},

		{"a request from nobody's address", func(a *arp) { a.sip = other(a.sip, 99) }, spoofed},
		{"a request from a neighbour's address", func(a *arp) { a.sip = w.peers["tracked"].v4 }, spoofed},
		{"a gratuitous reply for a neighbour's address", func(a *arp) { a.op, a.sip, a.tip = 2, w.peers["b"].v4, w.peers["b"].v4 }, spoofed},
		{"a request from a device that is not published", as("unpublished", nil), spoofed},
		{"another sender mac where macs are checked", as("pinned", func(a *arp) { a.sha = net.HardwareAddr{2, 9, 9, 9, 9, 9} }), badMAC},
		{"another frame mac where macs are checked", as("pinned", func(a *arp) { a.ethSrc = net.HardwareAddr{2, 9, 9, 9, 9, 9} }), badMAC},
		{"a probe with another frame mac where macs are checked", as("pinned", func(a *arp) { probe(a); a.ethSrc = broadcast }), badMAC},
		{"another sender mac where macs are not checked", func(a *arp) { a.sha = net.HardwareAddr{2, 9, 9, 9, 9, 9} }, reply},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := whoHas(copyPeer(w.peers["a"]), w.peers["b"].v4)
			c.change(a)
			frame := a.bytes()
			got := w.run(t, frame, skBuff{Ifindex: uint32(a.from.index)})
			w.wantReason(t, got, c.want, len(frame))
			want := frame
			if c.want == reply {
				want = a.answer().bytes()
			}
			if !bytes.Equal(got.data, want) {
				t.Errorf("frame is now\n%x, want\n%x", got.data, want)
			}
		})
	}
}

// answer is the reply as RFC 826 has it, with the host veth's MAC.
func (a *arp) answer() *arp {
	reply := *a
	reply.ethDst, reply.ethSrc = a.ethSrc, a.from.host
	reply.op = 2
	reply.sha, reply.sip = a.from.host, a.tip
	reply.tha, reply.tip = a.sha, a.sip
	return &reply
}
