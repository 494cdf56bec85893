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
	return func(_ *world, p *packet) { chained(changes...)(p) }
}

func chained(changes ...func(*packet)) func(*packet) {
	return func(p *packet) {
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

// jumbo gives a packet the header with which older kernels carry BIG TCP.
func jumbo(p *packet) {
	p.nextHeader, p.options = unix.IPPROTO_HOPOPTS, []byte{unix.IPPROTO_TCP, 0, 194, 4, 0, 1, 0, 0}
	p.noLength = true
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

// The same for established flows: to containers with an MTU of 1500 and 1400,
// to outside with the uplink's of 1500 and a route's of 1300.
func TestEstablishedFlowsKeepToTheMTU(t *testing.T) {
	w := newTrackingWorld(t)
	const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	a := w.peers["a"].addrs()
	for _, path := range []struct {
		name string
		n    translation
		mtu  int
	}{
		{"to a container", w.translations()[3], 1500},
		{"to a container of a smaller mtu", flowTo(a, w.peers["small"].addrs()), 1400},
		{"to outside", w.translations()[7], 1500},
		{"to outside by a smaller mtu", flowTo(a, behind("small mtu")), 1300},
		{"from outside", w.translations()[11], 1500},
	} {
		for _, c := range []struct {
			name     string
			protocol byte
			only6    bool
			change   func(header int) func(*world, *packet)
			fits     bool
		}{
			{"a packet that fits", tcp, false, func(int) func(*world, *packet) { return chain(sized(path.mtu)) }, true},
			{"a packet one byte too long", tcp, false, func(int) func(*world, *packet) { return chain(sized(path.mtu + 1)) }, false},
			{"a datagram that fits", udp, false, func(int) func(*world, *packet) { return chain(sized(path.mtu)) }, true},
			{"a datagram one byte too long", udp, false, func(int) func(*world, *packet) { return chain(sized(path.mtu + 1)) }, false},
			{"segments that fit", tcp, false, func(h int) func(*world, *packet) { return chain(segments(uint32(path.mtu - h - 20))) }, true},
			{"segments one byte too long", tcp, false, func(h int) func(*world, *packet) { return chain(segments(uint32(path.mtu - h - 19))) }, false},
			{"segments with options that fit", tcp, false, func(h int) func(*world, *packet) { return chain(segments(uint32(path.mtu-h-32)), tcpOptions) }, true},
			{"segments with options one byte too long", tcp, false, func(h int) func(*world, *packet) { return chain(segments(uint32(path.mtu-h-31)), tcpOptions) }, false},
			{"udp segments that fit", udp, false, func(h int) func(*world, *packet) { return chain(segments(uint32(path.mtu - h - 8))) }, true},
			{"udp segments one byte too long", udp, false, func(h int) func(*world, *packet) { return chain(segments(uint32(path.mtu - h - 7))) }, false},
			{"segments of the largest size", tcp, false, func(int) func(*world, *packet) { return chain(segments(0xffff)) }, false},
			{"big tcp without a length", tcp, false, func(h int) func(*world, *packet) { return chain(segments(uint32(path.mtu-h-20)), withoutLength) }, true},
			{"big tcp with a jumbo header", tcp, true, func(h int) func(*world, *packet) { return chain(segments(uint32(path.mtu-h-20)), jumbo) }, true},
			{"big tcp with a jumbo header, one byte too long", tcp, true, func(h int) func(*world, *packet) { return chain(segments(uint32(path.mtu-h-19)), jumbo) }, false},
		} {
			for _, v6 := range []bool{false, true} {
				header := 20
				if v6 {
					header = 40
				} else if c.only6 {
					continue
				}
				t.Run(path.name+"/"+c.name+"/"+protocolName(c.protocol, v6), func(t *testing.T) {
					e := path.n.entry(c.protocol, v6)
					w.add(t, e)
					defer w.remove(t, e)
					w.admit(t, e, original|replying)
					p := e.packet(w, original, false)
					c.change(header)(w, p)
					if c.fits {
						w.wantCarried(t, e, original, p)
					} else {
						w.wantLeft(t, e, p, ZiplineReasonREASON_NEXT_MTU)
					}
				})
			}
		}
	}
}

// What the loader knows of routes with an MTU below the uplink's.
func TestEstablishedFlowsKeepToTheMTUOfTheUplinksRoutes(t *testing.T) {
	w := newTrackingWorld(t)
	const least = 1400
	if err := w.objs.Uplinks.Put(uint32(w.uplink.index), ZiplineUplink{Mtu: least}); err != nil {
		t.Fatal(err)
	}
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := w.flows()["from a container to outside"].entry(protocol, v6)
		w.add(t, e)
		w.admit(t, e, original|replying)
		p := e.packet(w, original, false)
		sized(least)(p)
		w.wantCarried(t, e, original, p)
		sized(least + 1)(p)
		w.wantLeft(t, e, p, ZiplineReasonREASON_NEXT_MTU)
	})
}
