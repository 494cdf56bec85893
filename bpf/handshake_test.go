// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

const (
	tcpSynReceived = 2
	tcpSynTimeout  = 60 // conntrack's for that state, in seconds
)

// answered returns a connection whose SYN-ACK conntrack has seen, and no ACK.
func (n translation) answered(v6 bool) *entry {
	e := n.entry(unix.IPPROTO_TCP, v6)
	e.status, e.state, e.timeout = confirmed|seenReply, tcpSynReceived, tcpSynTimeout
	return e
}

// eachHandshake runs a test on an answered connection of each kind.
func eachHandshake(t *testing.T, test func(t *testing.T, w *world, e *entry)) {
	w := newTrackingWorld(t)
	for name, n := range w.flows() {
		for _, v6 := range []bool{false, true} {
			t.Run(name+"/"+protocolName(unix.IPPROTO_TCP, v6), func(t *testing.T) {
				e := n.answered(v6)
				w.add(t, e)
				defer w.remove(t, e)
				test(t, w, e)
			})
		}
	}
}

// synAck returns the packet of a direction as it is after the node, with SYN and ACK.
func (e *entry) synAck(w *world, direction int) *packet {
	p := e.packet(w, direction, true)
	p.flags = syn
	return p
}

// answer lets to_device see the SYN-ACK.
func (w *world) answer(t *testing.T, e *entry, directions uint16) {
	t.Helper()
	w.change(t, e)
	w.wantSeen(t, e.synAck(w, replying), staging{tcIndex: admitWord | directions}, ZiplineReasonREASON_NEXT_ADMITTED)
}

// The first request and its answer need not check in: SYN-ACK and ACK did.
func TestHandshakeAdmitsBothDirections(t *testing.T) {
	eachHandshake(t, func(t *testing.T, w *world, e *entry) {
		p := e.packet(w, replying, false)
		p.flags = syn
		if said := w.wantLeft(t, e, p, ZiplineReasonREASON_NEXT_TCP_FLAGS); said != admitWord|replying {
			t.Errorf("to_device is told %#x of the SYN-ACK, want %#x", said, admitWord|replying)
		}
		w.answer(t, e, replying)
		if said := w.wantLeft(t, e, e.packet(w, original, false), ZiplineReasonREASON_NEXT_CHECK_IN); said != admitWord|original|replying {
			t.Errorf("to_device is told %#x of the ACK, want %#x", said, admitWord|original|replying)
		}
		// As conntrack does when the ACK comes in.
		e.status, e.state, e.timeout = e.status|assured, tcpEstablished, tcpTimeout
		w.admit(t, e, original|replying)
		w.wantOnly(t, e, original|replying)
	})
}

// A SYN-ACK that rules dropped, or that came long ago, stands for nothing.
func TestAckAloneAdmitsItsDirection(t *testing.T) {
	eachHandshake(t, func(t *testing.T, w *world, e *entry) {
		if said := w.wantLeft(t, e, e.packet(w, original, false), ZiplineReasonREASON_NEXT_CHECK_IN); said != admitWord|original {
			t.Errorf("to_device is told %#x of the ACK, want %#x", said, admitWord|original)
		}
	})
}

// Nothing is carried before the connection is established, whatever has checked in.
func TestNothingIsCarriedInAHandshake(t *testing.T) {
	const opening, flags = ZiplineReasonREASON_NEXT_NOT_ESTABLISHED, ZiplineReasonREASON_NEXT_TCP_FLAGS
	eachHandshake(t, func(t *testing.T, w *world, e *entry) {
		for _, asked := range []uint16{replying, original | replying} {
			w.answer(t, e, asked)
			if said := w.wantLeft(t, e, e.packet(w, original, false), ZiplineReasonREASON_NEXT_CHECK_IN); said != admitWord|original|replying {
				t.Errorf("to_device is told %#x of the ACK, want %#x", said, admitWord|original|replying)
			}
			if said := w.wantLeft(t, e, e.packet(w, replying, false), opening); said != 0 {
				t.Errorf("to_device is told %#x of the server's data, want nothing", said)
			}
		}
		for _, f := range []byte{fin, rst, syn | fin, syn | rst, syn | urg} {
			for _, direction := range []int{original, replying} {
				p := e.packet(w, direction, false)
				p.flags = f
				if said := w.wantLeft(t, e, p, flags); said != 0 {
					t.Errorf("flags %#x: to_device is told %#x, want nothing", f, said)
				}
			}
		}
	})
}

func TestToDeviceAdmitsNothingElseOfAHandshake(t *testing.T) {
	const opening, flags = ZiplineReasonREASON_NEXT_NOT_ESTABLISHED, ZiplineReasonREASON_NEXT_TCP_FLAGS
	eachHandshake(t, func(t *testing.T, w *world, e *entry) {
		asked := staging{tcIndex: admitWord | original | replying}
		w.wantSeen(t, e.synAck(w, original), asked, flags)
		w.wantSeen(t, e.packet(w, original, true), asked, opening)
		w.wantSeen(t, e.packet(w, replying, true), asked, opening)
		urgent := e.synAck(w, replying)
		urgent.flags |= urg
		w.wantSeen(t, urgent, asked, flags)
		reset := e.synAck(w, replying)
		reset.flags |= rst
		w.wantSeen(t, reset, asked, flags)

		// Conntrack does not prolong the entry for one that is sent again.
		w.answer(t, e, replying)
		w.wantSeen(t, e.synAck(w, replying), asked, flags)

		before := *e
		for name, c := range map[string]struct {
			change func(e *entry)
			want   Reason
		}{
			"a timeout of other make": {func(e *entry) { e.timeout = tcpTimeout }, ZiplineReasonREASON_NEXT_TIMEOUT},
			"a while ago":             {func(e *entry) { e.timeout -= 3 }, flags},
			"before the SYN-ACK":      {func(e *entry) { e.state = 1 }, flags},
			"established":             {func(e *entry) { e.state, e.timeout = tcpEstablished, tcpTimeout }, flags},
		} {
			*e = before
			c.change(e)
			w.change(t, e)
			p := e.synAck(w, replying)
			got := w.runHook(t, HookDevice, p.bytes(), p.context(), asked)
			if _, ok := got.counted[c.want]; !ok {
				t.Errorf("%s: counted %v, want %s", name, got.counted, c.want)
			}
		}
	})
}
