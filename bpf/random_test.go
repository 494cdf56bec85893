// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// The fuzzer changes bytes; this draws each field from the values that matter,
// so that every combination of them comes up, and checks the same rules.
func TestRandomPacketsMeetTheRules(t *testing.T) {
	w := newTrackingWorld(t)
	seed := rand.Uint64()
	g := &generator{w: w, rand: rand.New(rand.NewPCG(seed, 1)), flows: w.enterFlows(t)}
	t.Logf("seed %d", seed)
	var rulings struct{ direct, uplink, container, answered, dropped, left int }
	for range 30000 {
		device, frame, gso := g.next()
		r := &rules{w: w, device: device, frame: frame, gso: gso, flows: g.flows}
		switch want, ok := r.check(t); {
		case !ok:
		case want.drop:
			rulings.dropped++
		case want.direct != nil:
			rulings.direct++
		case want.flow != nil && bytes.Equal(want.flow.ethDst, gatewayMAC):
			rulings.uplink++
		case want.flow != nil:
			rulings.container++
		case want.answer:
			rulings.answered++
		default:
			rulings.left++
		}
	}
	t.Logf("%+v", rulings)
	if min(rulings.direct, rulings.uplink, rulings.container, rulings.answered, rulings.dropped, rulings.left) < 200 {
		t.Errorf("the packets do not reach every ruling: %+v", rulings)
	}
}

type generator struct {
	w     *world
	rand  *rand.Rand
	flows []*entry
}

func pick[T any](g *generator, usual T, others ...T) T {
	if g.rand.IntN(8) > 0 || len(others) == 0 {
		return usual
	}
	return others[g.rand.IntN(len(others))]
}

func (g *generator) peer() *peer {
	all := peers()
	return copyPeer(g.w.peers[all[g.rand.IntN(len(all))].name])
}

func (g *generator) next() (*peer, []byte, int) {
	from, to := g.peer(), g.peer()
	switch g.rand.IntN(8) {
	case 0:
		return from, g.arp(from, to), 0
	case 1:
		return from, g.neighbour(from, to), pick(g, 0, 1000)
	case 2, 3:
		p := g.packet(from, to)
		return from, p.bytes(), int(p.gsoSize)
	default:
		p := g.tracked()
		return p.from, p.bytes(), int(p.gsoSize)
	}
}

// tracked draws a packet of a flow that conntrack knows, or nearly so.
func (g *generator) tracked() *packet {
	e := g.flows[g.rand.IntN(len(g.flows))]
	p := e.packet(g.w, 1+g.rand.IntN(2), false)
	p.from = pick(g, p.from, copyPeer(g.w.uplink), g.peer())
	p.ethDst, p.ethSrc = g.mac(p.ethDst), g.mac(p.ethSrc)
	g.headers(p)
	p.protocol = pick(g, e.protocol, unix.IPPROTO_TCP, unix.IPPROTO_UDP)
	p.sport, p.dport = pick(g, p.sport, p.sport+1), pick(g, p.dport, tcpPort)
	p.flags, p.noSum, p.tos = pick[byte](g, 0, 1, 2, 4, 8), pick(g, false, true), byte(g.rand.IntN(256))
	payload := g.payload()
	for i := range payload {
		payload[i] = byte(g.rand.IntN(256))
	}
	p.payload = payload
	if g.rand.IntN(20) == 0 { // any byte changed on the way
		p.raw = func(frame []byte) []byte {
			frame[g.rand.IntN(len(frame))] = byte(g.rand.IntN(256))
			return frame
		}
	}
	if g.rand.IntN(20) == 0 { // cut off
		p.raw = func(frame []byte) []byte { return frame[:min(len(frame), 34+g.rand.IntN(60))] }
	}
	return p
}

func (g *generator) payload() []byte {
	return make([]byte, pick(g, g.rand.IntN(100), 1240, 1261, 1361, 1440, 1460, 1461, 1480))
}

// headers draws what makes a packet one that is not plain.
func (g *generator) headers(p *packet) {
	if p.dst.Is4() {
		p.options = pick(g, nil, []byte{1, 1, 1, 0})
	} else if pick(g, false, true) {
		p.nextHeader = pick[byte](g, unix.IPPROTO_HOPOPTS, unix.IPPROTO_FRAGMENT, unix.IPPROTO_DSTOPTS)
		p.options = pick(g, []byte{unix.IPPROTO_TCP, 0, 194, 4, 0, 1, 0, 0}, []byte{unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0})
	}
	p.ttl, p.fragment, p.doff = pick[byte](g, 64, 2, 1, 0), pick[uint16](g, 0x4000, 0x2000, 1), pick[byte](g, 5, 8, 15, 3)
	p.noLength = pick(g, false, true)
	p.gsoSize = pick[uint32](g, 0, 1340, 1400, 1440, 1460, 1480)
}

func (g *generator) mac(usual net.HardwareAddr) net.HardwareAddr {
	return bytes.Clone(pick(g, usual, g.peer().mac, g.peer().host, broadcast))
}

func (g *generator) arp(from, to *peer) []byte {
	a := whoHas(from, pick(g, to.v4, from.v4, other(to.v4, 99)))
	a.ethDst, a.ethSrc, a.sha = g.mac(pick(g, broadcast, from.host)), g.mac(a.ethSrc), g.mac(a.sha)
	a.sip = pick(g, a.sip, netip.IPv4Unspecified(), to.v4)
	a.op, a.protocol, a.tail = pick(g, a.op, 2), pick(g, a.protocol, typeIPv6), pick(g, nil, make([]byte, 18))
	return a.bytes()
}

func (g *generator) neighbour(from, to *peer) []byte {
	n := solicit(from, pick(g, to.v6, from.v6))
	n.ethDst, n.ethSrc = g.mac(pick(g, n.ethDst, from.host)), g.mac(n.ethSrc)
	n.src = pick(g, n.src, netip.IPv6Unspecified(), netip.MustParseAddr("fe80::5"), to.v6)
	n.dst = pick(g, n.dst, n.target, solicitedNode(from.v6))
	n.options = pick(g, pick(g, n.options, nil), []byte{14, 1, 0, 0, 0, 0, 0, 0}, []byte{14, 0, 0, 0, 0, 0, 0, 0}, []byte{14, 2, 0, 0, 0, 0, 0, 0})
	n.hopLimit, n.kind, n.code, n.badSum = pick(g, n.hopLimit, 64), pick(g, n.kind, 136), pick(g, n.code, 1), pick(g, false, true)
	return n.bytes()
}

func (g *generator) packet(from, to *peer) *packet {
	p := tcp(from, pick(g, to.v4, to.v6, from.v4, from.v6, netip.MustParseAddr("192.0.2.1")))
	mapped := netip.AddrFrom16(from.v4.As16())
	if p.dst.Is4() {
		p.src = pick(g, p.src, netip.IPv4Unspecified(), to.v4, other(to.v4, 99))
	} else {
		p.src = pick(g, p.src, netip.IPv6Unspecified(), to.v6, mapped, netip.MustParseAddr("fe80::5"))
	}
	p.ethDst, p.ethSrc = g.mac(p.ethDst), g.mac(p.ethSrc)
	p.protocol = pick[byte](g, pick[byte](g, unix.IPPROTO_TCP, unix.IPPROTO_UDP), unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_SCTP)
	g.headers(p)
	p.payload = g.payload()
	return p
}
