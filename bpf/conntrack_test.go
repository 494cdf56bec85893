// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// translation is a way in which conntrack may translate a flow, in the words of
// its entry: what the client sends to, who serves it, and whom the server sees.
type translation struct {
	name                      string
	client, dst, server, seen pair
	// ports says that translated addresses keep their port, or that the port is
	// all that is translated.
	ports portRule
}

type portRule int

const (
	portsChange portRule = iota
	portsKept
	portsOnly
)

// translations returns each kind of NAT for each kind of flow: between
// containers, to outside, from outside.
func (w *world) translations() []translation {
	a, b := w.peers["a"].addrs(), w.peers["b"].addrs()
	rows := []translation{
		{"between containers", a, b, b, a, portsChange},
		{"between containers, to a service address", a, service, b, a, portsChange},
		{"between containers, masqueraded", a, b, b, nodeIP, portsChange},
		{"between containers, to a service address and masqueraded", a, service, b, nodeIP, portsChange},
		{"to outside", a, remote, remote, a, portsChange},
		{"to outside, masqueraded", a, remote, remote, nodeIP, portsChange},
		{"to outside, to a service address", a, service, remote, a, portsChange},
		{"to outside, to a service address and masqueraded", a, service, remote, nodeIP, portsChange},
		{"from outside", remote, b, b, remote, portsChange},
		{"from outside, to a host port", remote, nodeIP, b, remote, portsChange},
		{"from outside, masqueraded", remote, b, b, nodeIP, portsChange},
		{"from outside, to a host port and masqueraded", remote, nodeIP, b, nodeIP, portsChange},
	}
	for _, n := range rows {
		if n.dst != n.server || n.seen != n.client {
			n.name, n.ports = n.name+", with its ports", portsKept
			rows = append(rows, n)
		}
	}
	return append(rows,
		translation{"between containers, to another port", a, b, b, a, portsOnly},
		translation{"to outside, to another port", a, remote, remote, a, portsOnly},
		translation{"from outside, to another port", remote, b, b, remote, portsOnly},
	)
}

func (p *peer) addrs() pair { return pair{p.v4, p.v6} }

// entry returns the conntrack entry of a flow translated so.
func (n translation) entry(protocol byte, v6 bool) *entry {
	const natPort, servicePort = 50000, 443
	client := netip.AddrPortFrom(n.client.of(v6), clientPort)
	server := netip.AddrPortFrom(n.server.of(v6), tcpPort)
	dst, seen := netip.AddrPortFrom(n.dst.of(v6), tcpPort), netip.AddrPortFrom(n.seen.of(v6), clientPort)
	switch {
	case n.ports == portsOnly:
		dst = netip.AddrPortFrom(n.dst.of(v6), servicePort)
	case n.ports == portsChange && n.dst != n.server:
		dst = netip.AddrPortFrom(n.dst.of(v6), servicePort)
	}
	if n.ports == portsChange && n.seen != n.client {
		seen = netip.AddrPortFrom(n.seen.of(v6), natPort)
	}
	return established(protocol, client, dst, server, seen)
}

// carried returns the packet as the program must make it, the device that must
// get it, and the reason it is counted under.
func (e *entry) carried(w *world, direction int, sent *packet) (*packet, Reason) {
	want := *sent
	out := e.packet(w, direction, true)
	want.src, want.dst, want.sport, want.dport = out.src, out.dst, out.sport, out.dport
	want.ttl--
	if to := w.holder(out.dst); to != nil {
		want.ethDst, want.ethSrc, want.mark = to.mac, to.host, 0
		return &want, ZiplineReasonREASON_TRACKED_LOCAL
	}
	want.ethDst, want.ethSrc = gatewayMAC, w.uplink.host
	return &want, ZiplineReasonREASON_TRACKED_UPLINK
}

// hook is the program that sees the packet first.
func (p *packet) hook() Hook {
	if p.from.name == "uplink" {
		return HookUplink
	}
	return HookEndpoint
}

// wantCarried runs the packet and checks that it is carried, and every byte of
// it. The wanted packet is built from nothing, with sums of its own.
func (w *world) wantCarried(t *testing.T, e *entry, direction int, p *packet) {
	t.Helper()
	if !w.mends(e, direction, p) {
		w.wantLeft(t, e, p, ZiplineReasonREASON_NEXT_CHECKSUM)
		return
	}
	frame := p.bytes()
	got, said := w.whileAdmitted(t, e, p)
	want, reason := e.carried(w, direction, p)
	w.wantReason(t, got, reason, len(frame))
	if data := want.bytes(); !bytes.Equal(got.data, data) {
		t.Errorf("frame was\n%x, is\n%x, want\n%x", head(frame), head(got.data), head(data))
	}
	if got.mark != want.mark {
		t.Errorf("mark is %#x, want %#x", got.mark, want.mark)
	}
	if said != 0 {
		t.Errorf("to_device is told %#x about a packet that is carried", said)
	}
}

// mends says whether the kernel can mend the packet's checksum: older ones cannot
// where a network card may have summed up an IPv6 packet.
func (w *world) mends(e *entry, direction int, p *packet) bool {
	out := e.packet(w, direction, true)
	same := p.src == out.src && p.dst == out.dst && p.sport == out.sport && p.dport == out.dport
	return w.mendsIPv6 || p.src.Is4() || p.from.name != "uplink" || same
}

// wantLeft runs the packet, checks that the stack gets it as it was, and returns
// what to_device is told.
func (w *world) wantLeft(t *testing.T, e *entry, p *packet, reason Reason) uint16 {
	t.Helper()
	frame := p.bytes()
	got, said := w.whileAdmitted(t, e, p)
	w.wantReason(t, got, reason, len(frame))
	if !bytes.Equal(got.data, frame) {
		t.Errorf("frame was\n%x, is\n%x", head(frame), head(got.data))
	}
	if got.mark != p.mark {
		t.Errorf("mark is %#x, was %#x", got.mark, p.mark)
	}
	return said
}

// head is the part of a frame that a person wants to see.
func head(frame []byte) []byte { return frame[:min(len(frame), 14+40+20)] }

func protocolName(protocol byte, v6 bool) string {
	name := map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[protocol]
	if v6 {
		return name + "6"
	}
	return name + "4"
}

// eachProtocol runs a test for TCP and UDP over IPv4 and IPv6.
func eachProtocol(t *testing.T, test func(t *testing.T, protocol byte, v6 bool)) {
	t.Helper()
	for _, v6 := range []bool{false, true} {
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			t.Run(protocolName(protocol, v6), func(t *testing.T) { test(t, protocol, v6) })
		}
	}
}

func TestEstablishedFlowsAreCarriedWhoeverTranslatedThem(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		for _, n := range w.translations() {
			t.Run(n.name, func(t *testing.T) { w.testTranslation(t, n.entry(protocol, v6)) })
		}
	})
}

func (w *world) testTranslation(t *testing.T, e *entry) {
	directions := []int{original, replying}
	w.add(t, e)
	defer w.remove(t, e)
	for _, d := range directions {
		said := w.wantLeft(t, e, e.packet(w, d, false), ZiplineReasonREASON_NEXT_CHECK_IN)
		if want := admitWord | uint16(d); said != want {
			t.Errorf("direction %d: to_device is told %#x, want %#x", d, said, want)
		}
	}
	w.admit(t, e, original|replying)
	for _, d := range directions {
		w.wantCarried(t, e, d, e.packet(w, d, false))
		for _, payload := range [][]byte{nil, {1}, {0xff, 0xff}, bytes.Repeat([]byte{0xa5}, 1399)} {
			p := e.packet(w, d, false)
			p.payload, p.ttl, p.mark, p.tos = payload, 2, 0xbeef, 0x2e<<2
			w.wantCarried(t, e, d, p)
		}
	}
}

// On a kernel without the conntrack functions the program is loaded with the
// lookup cut out; then a known flow is carried like any other.
func TestWithoutConntrackNothingIsLookedUp(t *testing.T) {
	w := newWorld(t, false)
	e := w.translations()[0].entry(unix.IPPROTO_TCP, false)
	w.add(t, e)
	for _, to := range []netip.Addr{w.peers["b"].v4, w.peers["b"].v6} {
		w.check(t, to, row{"", func(*world, *packet) {}, ZiplineReasonREASON_DIRECT})
	}
	w.wantLeft(t, e, e.packet(w, original, true).as(w.uplink), ZiplineReasonREASON_NEXT_UNTRACKED)
}

// as returns the packet as if it came from this device.
func (p *packet) as(from *peer) *packet {
	c := *p
	c.from, c.ethDst, c.ethSrc = from, from.host, from.mac
	return &c
}

// The checksum of a packet is mended, not made: a wrong one stays as wrong as it
// was, and a datagram without one goes without.
func TestChecksumsThatTheSenderDidNotMakeRight(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		for _, n := range w.translations() {
			t.Run(n.name, func(t *testing.T) {
				e := n.entry(protocol, v6)
				w.add(t, e)
				defer w.remove(t, e)
				w.admit(t, e, original|replying)
				for _, d := range []int{original, replying} {
					p := e.packet(w, d, false)
					p.noSum = protocol == unix.IPPROTO_UDP
					if p.noSum {
						w.wantCarried(t, e, d, p)
					}
					w.wantWrongSumKept(t, e, d)
				}
			})
		}
	})
}

// wantWrongSumKept sends a packet of which a byte was changed on the way, and
// puts the byte right in what comes out: then all sums must be right.
func (w *world) wantWrongSumKept(t *testing.T, e *entry, direction int) {
	t.Helper()
	for _, at := range []int{-1, 14 + 1} { // of the payload, of the IP header
		p := e.packet(w, direction, false)
		if !w.mends(e, direction, p) {
			continue
		}
		want, _ := e.carried(w, direction, p)
		good := p.bytes()
		i := (at + len(good)) % len(good)
		p.raw = set(i, good[i]^0x5a)
		got, _ := w.whileAdmitted(t, e, p)
		if len(got.data) != len(good) || got.data[i] != good[i]^0x5a {
			t.Fatalf("byte %d is changed: %x", i, head(got.data))
		}
		got.data[i] = good[i]
		if !bytes.Equal(got.data, want.bytes()) {
			t.Errorf("byte %d: frame is\n%x, want\n%x", i, head(got.data), head(want.bytes()))
		}
	}
}
