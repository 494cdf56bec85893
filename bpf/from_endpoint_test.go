// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// row is a case: a plain packet from a to b with one change, and the reason it
// must be counted under.
type row struct {
	name   string
	change func(w *world, p *packet)
	want   Reason
}

func both() []row {
	return []row{
		{"a tcp packet to a neighbour", func(*world, *packet) {}, ZiplineReasonREASON_DIRECT},
		{"a udp packet to a neighbour", func(_ *world, p *packet) { p.protocol = unix.IPPROTO_UDP }, ZiplineReasonREASON_DIRECT},
		{"a mark does not come along", func(_ *world, p *packet) { p.mark = 0xbeef }, ZiplineReasonREASON_DIRECT},
		{"ttl 1 is enough between neighbours", func(_ *world, p *packet) { p.ttl = 1 }, ZiplineReasonREASON_DIRECT},
		{"ttl 0 is never right", func(_ *world, p *packet) { p.ttl = 0 }, ZiplineReasonREASON_NEXT_TTL},
		{"a syn with no flow", func(_ *world, p *packet) { p.raw = set(-7-20+13, 2) }, ZiplineReasonREASON_DIRECT},

		{"an address of nobody", func(_ *world, p *packet) { p.src = other(p.src, 99) }, ZiplineReasonREASON_DROP_SOURCE},
		{"an address of the neighbour", func(_ *world, p *packet) { p.src = p.dst }, ZiplineReasonREASON_DROP_SOURCE},
		{"another mac where macs are not checked", func(_ *world, p *packet) { p.ethSrc[5] ^= 0xff }, ZiplineReasonREASON_DIRECT},
		{"the right mac where macs are checked", from("pinned", nil), ZiplineReasonREASON_DIRECT},
		{"another mac where macs are checked", from("pinned", func(p *packet) { p.ethSrc[5] ^= 0xff }), ZiplineReasonREASON_DROP_MAC},
		{"an own address from an unchecked device", from("unchecked", nil), ZiplineReasonREASON_DIRECT},
		{"a foreign address from an unchecked device", from("unchecked", foreign), ZiplineReasonREASON_NEXT_UNCHECKED},
		{"a foreign address and mac from a device with macs checked", from("unchecked pinned", func(p *packet) {
			foreign(p)
			p.ethSrc[0] ^= 0x10
		}), ZiplineReasonREASON_DROP_MAC},
		{"a foreign address from a device with macs checked", from("unchecked pinned", foreign), ZiplineReasonREASON_NEXT_UNCHECKED},
		{"a device that is not published", from("unpublished", nil), ZiplineReasonREASON_DROP_SOURCE},

		{"a frame for another mac", func(_ *world, p *packet) { p.ethDst = net.HardwareAddr{2, 9, 9, 9, 9, 9} }, ZiplineReasonREASON_NEXT_OTHERHOST},
		{"a frame for the neighbour's mac", func(w *world, p *packet) { p.ethDst = w.peers["b"].mac }, ZiplineReasonREASON_NEXT_OTHERHOST},
		{"a unicast address in a broadcast frame", func(_ *world, p *packet) { p.ethDst = bytes.Repeat([]byte{0xff}, 6) }, ZiplineReasonREASON_NEXT_GROUP},
		{"a unicast address in a multicast frame", func(_ *world, p *packet) { p.ethDst = net.HardwareAddr{1, 0, 0x5e, 0, 0, 1} }, ZiplineReasonREASON_NEXT_GROUP},
		{"a protocol that may not be shortened", func(_ *world, p *packet) { p.protocol, p.layer4 = unix.IPPROTO_SCTP, make([]byte, 16) }, ZiplineReasonREASON_NEXT_PROTOCOL},
		{"an address outside", func(_ *world, p *packet) { p.dst = outside(p.dst) }, ZiplineReasonREASON_NEXT_NO_ENDPOINT},
		{"an own address", func(w *world, p *packet) { p.dst = p.src }, ZiplineReasonREASON_NEXT_SELF},
		{"a neighbour in another network", to("stranger"), ZiplineReasonREASON_NEXT_NETWORK},
		{"between two that are of no network", func(w *world, p *packet) {
			from("lonely", nil)(w, p)
			to("lonely too")(w, p)
		}, ZiplineReasonREASON_NEXT_NETWORK},
		{"a neighbour without direct forwarding", to("tracked"), ZiplineReasonREASON_NEXT_NOT_DIRECT},
		{"from an endpoint without direct forwarding", from("tracked", nil), ZiplineReasonREASON_NEXT_NOT_DIRECT},

		{"headers without ports", func(_ *world, p *packet) { p.layer4 = []byte{1, 2} }, ZiplineReasonREASON_NEXT_MALFORMED},
		{"another version in the ip header", func(_ *world, p *packet) { p.raw = set(14, 0x55) }, ZiplineReasonREASON_NEXT_MALFORMED},
	}
}

func only4() []row {
	return []row{
		{"a second address of the own device", func(w *world, p *packet) { p.dst = w.peers["a"].extra }, ZiplineReasonREASON_NEXT_SELF},
		{"the unspecified address", func(_ *world, p *packet) { p.src = netip.IPv4Unspecified() }, ZiplineReasonREASON_NEXT_STACK_SOURCE},
		{"the unspecified address and another mac where macs are checked", from("pinned", func(p *packet) {
			p.src, p.ethSrc[5] = netip.IPv4Unspecified(), 0x77
		}), ZiplineReasonREASON_DROP_MAC},
		{"a multicast address", func(_ *world, p *packet) { p.dst = netip.MustParseAddr("224.0.0.251") }, ZiplineReasonREASON_NEXT_GROUP},
		{"the last multicast address", func(_ *world, p *packet) { p.dst = netip.MustParseAddr("239.255.255.255") }, ZiplineReasonREASON_NEXT_GROUP},
		{"the broadcast address", func(_ *world, p *packet) { p.dst = netip.MustParseAddr("255.255.255.255") }, ZiplineReasonREASON_NEXT_GROUP},
		{"a first fragment", func(_ *world, p *packet) { p.fragment = 0x2000 }, ZiplineReasonREASON_NEXT_FRAGMENT},
		{"a last fragment", func(_ *world, p *packet) { p.fragment = 0x0001 }, ZiplineReasonREASON_NEXT_FRAGMENT},
		{"don't fragment is no fragment", func(_ *world, p *packet) { p.fragment = 0x4000 }, ZiplineReasonREASON_DIRECT},
		{"ip options", func(_ *world, p *packet) { p.options = []byte{7, 3, 4, 0} }, ZiplineReasonREASON_NEXT_OPTIONS},
		{"a header length below the least", func(_ *world, p *packet) { p.raw = set(14, 0x44) }, ZiplineReasonREASON_NEXT_OPTIONS},
		{"icmp", func(_ *world, p *packet) { p.protocol, p.layer4 = unix.IPPROTO_ICMP, make([]byte, 8) }, ZiplineReasonREASON_NEXT_PROTOCOL},
		{"another ethernet type", func(_ *world, p *packet) { p.etherType = 0x88cc }, ZiplineReasonREASON_NEXT_ETHERTYPE},
		{"a vlan tag in the frame", func(_ *world, p *packet) { p.etherType = typeVLAN }, ZiplineReasonREASON_NEXT_VLAN},
		{"a service vlan tag in the frame", func(_ *world, p *packet) { p.etherType = 0x88a8 }, ZiplineReasonREASON_NEXT_VLAN},
	}
}

func only6() []row {
	hopByHop := []byte{unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0}
	ext := func(header byte, content []byte) func(*world, *packet) {
		return func(_ *world, p *packet) { p.nextHeader, p.options = header, content }
	}
	return []row{
		{"the unspecified address", func(_ *world, p *packet) { p.src = netip.IPv6Unspecified() }, ZiplineReasonREASON_NEXT_STACK_SOURCE},
		{"a link-local address", func(_ *world, p *packet) { p.src = netip.MustParseAddr("fe80::1") }, ZiplineReasonREASON_NEXT_STACK_SOURCE},
		{"the last link-local address", func(_ *world, p *packet) { p.src = netip.MustParseAddr("febf:ffff::1") }, ZiplineReasonREASON_NEXT_STACK_SOURCE},
		{"an address just above link-local", func(_ *world, p *packet) { p.src = netip.MustParseAddr("fec0::1") }, ZiplineReasonREASON_DROP_SOURCE},
		{"a link-local address and another mac where macs are checked", from("pinned", func(p *packet) {
			p.src, p.ethSrc[5] = netip.MustParseAddr("fe80::1"), 0x77
		}), ZiplineReasonREASON_DROP_MAC},
		{"an ipv4-mapped address of the device", func(w *world, p *packet) { p.src = netip.AddrFrom16(w.peers["a"].v4.As16()) }, ZiplineReasonREASON_DROP_SOURCE},
		{"an ipv4-mapped address of a neighbour", func(w *world, p *packet) { p.dst = netip.AddrFrom16(w.peers["b"].v4.As16()) }, ZiplineReasonREASON_NEXT_NO_ENDPOINT},
		{"a multicast address", func(_ *world, p *packet) { p.dst = netip.MustParseAddr("ff02::fb") }, ZiplineReasonREASON_NEXT_GROUP},
		{"a fragment header", ext(unix.IPPROTO_FRAGMENT, []byte{unix.IPPROTO_TCP, 0, 0, 0, 0, 0, 0, 1}), ZiplineReasonREASON_NEXT_FRAGMENT},
		{"a hop-by-hop header", ext(unix.IPPROTO_HOPOPTS, hopByHop), ZiplineReasonREASON_NEXT_OPTIONS},
		{"a routing header", ext(unix.IPPROTO_ROUTING, hopByHop), ZiplineReasonREASON_NEXT_OPTIONS},
		{"destination options", ext(unix.IPPROTO_DSTOPTS, hopByHop), ZiplineReasonREASON_NEXT_OPTIONS},
		{"icmpv6", func(_ *world, p *packet) { p.protocol, p.layer4 = unix.IPPROTO_ICMPV6, make([]byte, 8) }, ZiplineReasonREASON_NEXT_PROTOCOL},
		{"icmpv6 without a type", func(_ *world, p *packet) { p.protocol, p.cut = unix.IPPROTO_ICMPV6, 14+40 }, ZiplineReasonREASON_NEXT_PROTOCOL},
	}
}

func TestEveryReasonToCarryDropOrLeaveAPacket(t *testing.T) {
	w := newWorld(t, true)
	for _, r := range append(both(), only4()...) {
		t.Run("ipv4/"+r.name, func(t *testing.T) { w.check(t, w.peers["b"].v4, r) })
	}
	for _, r := range append(both(), only6()...) {
		t.Run("ipv6/"+r.name, func(t *testing.T) { w.check(t, w.peers["b"].v6, r) })
	}
}

// check runs the case and compares verdict, counters, bytes and mark.
func (w *world) check(t *testing.T, dst netip.Addr, r row) {
	t.Helper()
	p := tcp(copyPeer(w.peers["a"]), dst)
	r.change(w, p)
	frame := p.bytes()
	got := w.run(t, frame, p.context())
	w.wantReason(t, got, r.want, len(frame))
	want, mark := frame, p.mark
	if r.want == ZiplineReasonREASON_DIRECT {
		receiver := w.holder(p.dst)
		want = append(append(append([]byte(nil), receiver.mac...), receiver.host...), frame[12:]...)
		mark = 0
	}
	if !bytes.Equal(got.data, want) {
		t.Errorf("frame is now\n%x, want\n%x", got.data, want)
	}
	if got.mark != mark {
		t.Errorf("mark is now %#x, want %#x", got.mark, mark)
	}
}

// wantReason checks that the packet was counted once, under this reason, and
// that the verdict is the reason's.
func (w *world) wantReason(t *testing.T, got outcome, want Reason, length int) {
	t.Helper()
	verdict := map[Verdict]int32{VerdictRedirect: redirVerdict, VerdictDrop: dropVerdict, VerdictNext: nextVerdict}[want.Verdict()]
	if got.verdict != verdict {
		t.Errorf("verdict is %d, want %d", got.verdict, verdict)
	}
	c, ok := got.counted[want]
	if len(got.counted) != 1 || !ok || c.Packets != 1 || c.Bytes != uint64(length) {
		t.Errorf("counted %v, want one packet of %d bytes as %q", got.counted, length, want)
	}
}

func (w *world) holder(addr netip.Addr) *peer {
	for _, p := range w.peers {
		if p.name != "unpublished" && (p.v4 == addr || p.v6 == addr || p.extra == addr) {
			return p
		}
	}
	return nil
}

// from sends as another peer; change may be nil.
func from(name string, change func(*packet)) func(*world, *packet) {
	return func(w *world, p *packet) {
		*p = *tcp(copyPeer(w.peers[name]), p.dst)
		if change != nil {
			change(p)
		}
	}
}

func foreign(p *packet) { p.src = other(p.src, 99) }

func to(name string) func(*world, *packet) {
	return func(w *world, p *packet) {
		if p.dst.Is4() {
			p.dst = w.peers[name].v4
		} else {
			p.dst = w.peers[name].v6
		}
	}
}

// copyPeer keeps mutations of MACs out of the world.
func copyPeer(p *peer) *peer {
	c := *p
	c.mac, c.host = bytes.Clone(p.mac), bytes.Clone(p.host)
	return &c
}

// other is the address of the same subnet with this last byte.
func other(addr netip.Addr, last byte) netip.Addr {
	b := addr.AsSlice()
	b[len(b)-1] = last
	a, _ := netip.AddrFromSlice(b)
	return a
}

func outside(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.MustParseAddr("192.0.2.1")
	}
	return netip.MustParseAddr("2001:db8::1")
}

// set changes the byte at an offset, from the end where it is negative.
func set(offset int, value byte) func([]byte) []byte {
	return func(frame []byte) []byte {
		if offset < 0 {
			offset += len(frame)
		}
		frame[offset] = value
		return frame
	}
}
