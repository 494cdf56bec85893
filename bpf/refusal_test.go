// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// refusal is a case: an established flow whose packets would be carried, with
// one change to the entry or to the packet, and the reason why the stack gets
// the packet.
type refusal struct {
	name  string
	entry func(*entry)
	// packet may be nil, as entry may.
	packet func(w *world, p *packet)
	want   Reason
	// protocol and family that it is about, 0 for both.
	protocol byte
	family   int
}

// flows are the translations whose first packets the refusals are tried on: each
// program and each way out.
func (w *world) flows() map[string]translation {
	all := w.translations()
	return map[string]translation{
		"from a container to another": all[1],
		"from a container to outside": all[5],
		"from outside to a container": all[9],
	}
}

// ofEntry are reasons that the entry gives, whoever the packet comes from.
func ofEntry() []refusal {
	const (
		tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
		opening  = ZiplineReasonREASON_NEXT_NOT_ESTABLISHED
		flags    = ZiplineReasonREASON_NEXT_TCP_FLAGS
	)
	rows := []refusal{
		{name: "no answer seen", entry: func(e *entry) { e.status &^= seenReply }, want: opening},
		{name: "tcp not assured", entry: func(e *entry) { e.status &^= assured }, want: opening, protocol: tcp},
		{name: "sequence numbers adjusted", entry: func(e *entry) { e.seqAdjust = true }, want: opening, protocol: tcp},
		{name: "a syn", packet: func(_ *world, p *packet) { p.flags = 0x02 }, want: flags, protocol: tcp},
		{name: "a fin", packet: func(_ *world, p *packet) { p.flags = 0x01 }, want: flags, protocol: tcp},
		{name: "a reset", packet: func(_ *world, p *packet) { p.flags = 0x04 }, want: flags, protocol: tcp},
		{name: "all flags", packet: func(_ *world, p *packet) { p.flags = 0xef }, want: flags, protocol: tcp},
		{name: "ttl 1", packet: func(_ *world, p *packet) { p.ttl = 1 }, want: ZiplineReasonREASON_NEXT_TTL},
		{name: "ttl 0", packet: func(_ *world, p *packet) { p.ttl = 0 }, want: ZiplineReasonREASON_NEXT_TTL},
	}
	for state := uint8(0); state <= 9; state++ { // enum tcp_conntrack
		if state == tcpEstablished || state == tcpSynReceived { // the latter: handshake_test.go
			continue
		}
		name := "tcp state " + string('0'+rune(state))
		rows = append(rows, refusal{name: name, entry: func(e *entry) { e.state = state }, want: opening, protocol: tcp})
	}
	return append(rows, ofFrame()...)
}

func TestFlowsWithAHelperGoToTheStack(t *testing.T) {
	w := newTrackingWorld(t)
	e := w.flows()["from outside to a container"].entry(unix.IPPROTO_TCP, false)
	e.helper = "ftp"
	testutil.RequireKernel(t, "conntrack helper ftp", w.addHelped(t, e))
	w.wantNotAdmitted(t, e, ZiplineReasonREASON_NEXT_HELPER)
	w.wantLeft(t, e, e.packet(w, original, false), ZiplineReasonREASON_NEXT_HELPER)
}

// ofFrame are reasons that the frame gives, which come before conntrack is asked.
func ofFrame() []refusal {
	change := func(f func(p *packet)) func(*world, *packet) { return func(_ *world, p *packet) { f(p) } }
	return []refusal{
		{name: "a frame for another mac", packet: change(func(p *packet) { p.ethDst = net.HardwareAddr{2, 9, 9, 9, 9, 9} }), want: ZiplineReasonREASON_NEXT_OTHERHOST},
		{name: "a broadcast frame", packet: change(func(p *packet) { p.ethDst = broadcast }), want: ZiplineReasonREASON_NEXT_GROUP},
		{name: "another ethernet type", packet: change(func(p *packet) { p.etherType = 0x88cc }), want: ZiplineReasonREASON_NEXT_ETHERTYPE},
		{name: "another version", packet: change(func(p *packet) { p.raw = set(14, 0x55) }), want: ZiplineReasonREASON_NEXT_MALFORMED},
		{name: "another protocol", packet: change(func(p *packet) { p.protocol, p.layer4 = unix.IPPROTO_SCTP, make([]byte, 16) }), want: ZiplineReasonREASON_NEXT_PROTOCOL},
		{name: "tcp cut before its flags", packet: change(func(p *packet) { p.layer4 = p.l4()[:13] }), want: ZiplineReasonREASON_NEXT_MALFORMED, protocol: unix.IPPROTO_TCP},
		{name: "tcp cut before its checksum", packet: change(func(p *packet) { p.layer4 = p.l4()[:16] }), want: ZiplineReasonREASON_NEXT_CHECKSUM, protocol: unix.IPPROTO_TCP},
		{name: "tcp with a senseless header length", packet: change(func(p *packet) { p.doff = 4 }), want: ZiplineReasonREASON_NEXT_MALFORMED, protocol: unix.IPPROTO_TCP},
		{name: "udp cut before its ports", packet: change(func(p *packet) { p.layer4 = p.l4()[:3] }), want: ZiplineReasonREASON_NEXT_MALFORMED, protocol: unix.IPPROTO_UDP},
		{name: "udp cut before its checksum", packet: change(func(p *packet) { p.layer4 = p.l4()[:6] }), want: ZiplineReasonREASON_NEXT_CHECKSUM, protocol: unix.IPPROTO_UDP},
		{name: "a first fragment", packet: change(func(p *packet) { p.fragment = 0x2000 }), want: ZiplineReasonREASON_NEXT_FRAGMENT, family: 4},
		{name: "a later fragment", packet: change(func(p *packet) { p.fragment = 1 }), want: ZiplineReasonREASON_NEXT_FRAGMENT, family: 4},
		{name: "ip options", packet: change(func(p *packet) { p.options = []byte{7, 3, 4, 0} }), want: ZiplineReasonREASON_NEXT_OPTIONS, family: 4},
		{name: "a fragment header", packet: change(func(p *packet) { p.nextHeader, p.options = unix.IPPROTO_FRAGMENT, make([]byte, 8) }), want: ZiplineReasonREASON_NEXT_FRAGMENT, family: 6},
		{name: "destination options", packet: change(func(p *packet) { p.nextHeader, p.options = unix.IPPROTO_DSTOPTS, make([]byte, 8) }), want: ZiplineReasonREASON_NEXT_OPTIONS, family: 6},
	}
}

func TestWhatIsNotPlainOrNotEstablishedGoesToTheStack(t *testing.T) {
	w := newTrackingWorld(t)
	for name, n := range w.flows() {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
				for _, r := range ofEntry() {
					if r.protocol != 0 && r.protocol != protocol || r.family == 4 && v6 || r.family == 6 && !v6 {
						continue
					}
					t.Run(r.name, func(t *testing.T) { w.testRefusal(t, n.entry(protocol, v6), r) })
				}
			})
		})
	}
}

func (w *world) testRefusal(t *testing.T, e *entry, r refusal) {
	if r.entry != nil {
		r.entry(e)
	}
	w.add(t, e)
	defer w.remove(t, e)
	if r.entry == nil {
		w.admit(t, e, original|replying)
	} else {
		// Such an entry is not admitted either: it must not even be tried.
		w.wantNotAdmitted(t, e, r.want)
	}
	p := e.packet(w, original, false)
	if r.packet != nil {
		r.packet(w, p)
	}
	w.wantLeft(t, e, p, r.want)
}
