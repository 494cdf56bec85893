// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// sized makes the IP packet of this many bytes.
func sized(length int) func(*packet) {
	return func(p *packet) {
		p.payload = nil
		p.payload = make([]byte, length-(len(p.bytes())-14))
	}
}

// segments makes the packet a GSO packet, whose segments carry size bytes each.
func segments(size uint32) func(*packet) {
	return func(p *packet) {
		p.payload = make([]byte, 3000)
		p.gsoSize, p.gsoSegs = size, 3000/size+1
	}
}

func chain(changes ...func(*packet)) func(*world, *packet) {
	return func(_ *world, p *packet) {
		for _, change := range changes {
			change(p)
		}
	}
}

func udp(p *packet)           { p.protocol = unix.IPPROTO_UDP }
func withoutLength(p *packet) { p.noLength = true }

// options gives the TCP header 12 bytes of options.
func tcpOptions(p *packet) {
	p.doff = 8
	p.payload = append(make([]byte, 12), p.payload...)
}

// The receiver's MTU is 1500 or 1400; what counts is each packet on the wire.
func TestPacketsOverTheReceiversMTUGoToTheStack(t *testing.T) {
	w := newWorld(t, true)
	const direct, over = ZiplineReasonREASON_DIRECT, ZiplineReasonREASON_NEXT_MTU
	toSmall := func(changes ...func(*packet)) func(*world, *packet) {
		return func(w *world, p *packet) {
			to("small")(w, p)
			chain(changes...)(w, p)
		}
	}
	shared := []row{
		{"a packet of the mtu", chain(sized(1500)), direct},
		{"a packet over the mtu", chain(sized(1501)), over},
		{"a packet of the smaller mtu", toSmall(sized(1400)), direct},
		{"a packet over the smaller mtu", toSmall(sized(1401)), over},
		{"a long packet that says it is empty", chain(sized(1501), withoutLength), over},
	}
	for _, r := range shared {
		t.Run("ipv4/"+r.name, func(t *testing.T) { w.check(t, w.peers["b"].v4, r) })
		t.Run("ipv6/"+r.name, func(t *testing.T) { w.check(t, w.peers["b"].v6, r) })
	}
	jumbo := func(p *packet) {
		p.nextHeader, p.options = unix.IPPROTO_HOPOPTS, []byte{unix.IPPROTO_TCP, 0, 194, 4, 0, 1, 0, 0}
		p.noLength = true
	}
	for _, r := range []row{
		{"tcp segments that fit exactly", chain(segments(1460)), direct},
		{"tcp segments one byte too long", chain(segments(1461)), over},
		{"tcp segments with options that fit exactly", chain(segments(1448), tcpOptions), direct},
		{"tcp segments with options one byte too long", chain(segments(1449), tcpOptions), over},
		{"tcp segments too long for the smaller mtu", toSmall(segments(1361)), over},
		{"tcp segments that fit the smaller mtu", toSmall(segments(1360)), direct},
		{"udp segments that fit exactly", chain(udp, segments(1472)), direct},
		{"udp segments one byte too long", chain(udp, segments(1473)), over},
		{"a big tcp packet without a length", chain(segments(1460), withoutLength), direct},
		{"tcp segments with a senseless header length", chain(segments(1000), func(p *packet) { p.doff = 4 }), ZiplineReasonREASON_NEXT_MALFORMED},
		{"tcp segments without a header length", chain(segments(1000), func(p *packet) { p.cut = 14 + 20 + 12 }), ZiplineReasonREASON_NEXT_MALFORMED},
	} {
		t.Run("ipv4/"+r.name, func(t *testing.T) { w.check(t, w.peers["b"].v4, r) })
	}
	for _, r := range []row{
		{"tcp segments that fit exactly", chain(segments(1440)), direct},
		{"tcp segments one byte too long", chain(segments(1441)), over},
		{"udp segments that fit exactly", chain(udp, segments(1452)), direct},
		{"udp segments one byte too long", chain(udp, segments(1453)), over},
		{"a big tcp packet without a length", chain(segments(1440), withoutLength), direct},
		{"a big tcp packet with a jumbo header", chain(segments(1440), jumbo), direct},
		{"big tcp segments one byte too long", chain(segments(1441), jumbo), over},
		{"a jumbo header on a packet that is no gso packet", chain(jumbo), ZiplineReasonREASON_NEXT_OPTIONS},
		{"a jumbo header beside a length", chain(segments(1440), jumbo, func(p *packet) { p.noLength = false }), ZiplineReasonREASON_NEXT_OPTIONS},
		{"a jumbo header before udp", chain(segments(1440), jumbo, func(p *packet) { p.options[0] = unix.IPPROTO_UDP }), ZiplineReasonREASON_NEXT_OPTIONS},
		{"a longer hop-by-hop header", chain(segments(1440), jumbo, func(p *packet) { p.options[1] = 1 }), ZiplineReasonREASON_NEXT_OPTIONS},
		{"another hop-by-hop option", chain(segments(1440), jumbo, func(p *packet) { p.options[2] = 5 }), ZiplineReasonREASON_NEXT_OPTIONS},
		{"a jumbo option of another length", chain(segments(1440), jumbo, func(p *packet) { p.options[3] = 3 }), ZiplineReasonREASON_NEXT_OPTIONS},
	} {
		t.Run("ipv6/"+r.name, func(t *testing.T) { w.check(t, w.peers["b"].v6, r) })
	}
}
