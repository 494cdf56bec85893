// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Flags of TCP.
const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	urg = 0x20
)

// untracked returns nil for a packet that is not carried as one of a flow, which
// takes a hop.
func untracked(got outcome) error {
	ttl := got.data[14+8]
	if got.data[14]>>4 == 6 {
		ttl = got.data[14+7]
	}
	if got.verdict == redirVerdict && ttl != 64 {
		return errors.New("carried as one of the flow")
	}
	return nil
}

// deleted is an answer about a flow that somebody deletes from conntrack.
func (w *world) deleted(t *testing.T, e *entry, direction int) answer {
	a := answer{
		prepare: func() { w.admit(t, e, original|replying) },
		p:       e.packet(w, direction, false), other: e.packet(w, direction, false),
		change: func() error { return w.delete(e) }, restore: func() error { return w.create(e) },
		changed: untracked,
	}
	a.other.sport++
	return a
}

// eachDirection calls test for each direction of each flow that can be carried.
func (w *world) eachDirection(t *testing.T, flows []translation, protocol byte, v6 bool, test func(t *testing.T, e *entry, direction int)) {
	t.Helper()
	for _, n := range flows {
		for _, d := range []int{original, replying} {
			e := n.entry(protocol, v6)
			if !w.mends(e, d, e.packet(w, d, false)) {
				continue
			}
			t.Run(fmt.Sprintf("%s, %d", n.name, d), func(t *testing.T) {
				w.add(t, e)
				defer w.remove(t, e)
				test(t, e, d)
			})
		}
	}
}

// turnFlows are flows of each kind, with their addresses translated once, twice and never.
func (w *world) turnFlows() []translation {
	all := w.translations()
	return []translation{all[0], all[1], all[3], all[5], all[7], all[9], all[11]}
}

func TestConntracksAnswersHoldForATick(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		w.eachDirection(t, w.translations(), protocol, v6, func(t *testing.T, e *entry, direction int) {
			w.wantForATick(t, w.deleted(t, e, direction))
		})
	})
}

// Whatever follows a packet that may end the flow meets conntrack, whichever
// direction it has, and whichever CPU saw it.
func TestNoAnswerOutlastsATurn(t *testing.T) {
	w := newTrackingWorld(t)
	for _, v6 := range []bool{false, true} {
		w.eachDirection(t, w.turnFlows(), unix.IPPROTO_TCP, v6, func(t *testing.T, e *entry, direction int) {
			for _, turning := range []int{original, replying} {
				for _, flag := range []byte{fin, syn, rst} {
					a := w.deleted(t, e, direction)
					a.turn = e.packet(w, turning, false)
					a.turn.flags, a.atOnce = flag, true
					w.wantForATick(t, a)
				}
			}
		})
	}
}

// The end of another connection of the same two is none of this one's, whoever
// ends it.
func TestAnswersOutlastTheTurnsOfOthers(t *testing.T) {
	w := newTrackingWorld(t)
	for _, v6 := range []bool{false, true} {
		w.eachDirection(t, w.turnFlows(), unix.IPPROTO_TCP, v6, func(t *testing.T, e *entry, direction int) {
			for _, ending := range []int{original, replying} {
				a := w.deleted(t, e, direction)
				a.turn = e.packet(w, ending, false)
				a.turn.flags = fin
				if ending == original {
					a.turn.sport++
				} else {
					a.turn.dport++
				}
				w.wantForATick(t, a)
			}
		})
	}
}

// Conntrack may see a packet one tick after the program noted it: what it said
// in between does not hold.
func TestTurnsAreNotedForTwoTicks(t *testing.T) {
	w := newTrackingWorld(t)
	e := w.flows()["from a container to another"].entry(unix.IPPROTO_TCP, false)
	w.add(t, e)
	for _, after := range []uint32{1, 2} {
		if held := w.heldAfterTurn(t, e, after); held != (after == 2) {
			t.Errorf("%d ticks after a turn answers hold: %v", after, held)
		}
	}
}

// heldAfterTurn says whether an answer holds for the tick, so many ticks after a turn.
func (w *world) heldAfterTurn(t *testing.T, e *entry, ticks uint32) bool {
	t.Helper()
	p, end := e.packet(w, original, false), e.packet(w, replying, false)
	end.flags = fin
	var turned, begun uint32
	var first, second outcome
	for deadline := time.Now().Add(20 * time.Second); begun == 0 || begun-turned != ticks; {
		if time.Now().After(deadline) {
			t.Fatal("never quick enough")
		}
		withinATick(t, func() {
			if begun != 0 {
				must(t, w.create(e))
			}
			w.admit(t, e, original|replying)
			nextTick(t)
			w.sendBy(t, 0, end)
			turned = tick(t)
			for range ticks - 1 {
				nextTick(t)
			}
		}, func() {
			begun = tick(t)
			first = w.sendBy(t, 0, p)
			must(t, w.delete(e))
			second = w.sendBy(t, 0, p)
		})
	}
	must(t, w.create(e))
	if untracked(first) == nil {
		t.Errorf("not carried before its entry is deleted")
	}
	return untracked(second) != nil
}

// Neighbours talk past conntrack until it knows a flow of which the packet is the
// answer: a tick later at the most, and at once where a packet of the container
// has opened it.
func TestUnknownFlowsAreUnknownForATick(t *testing.T) {
	w := newTrackingWorld(t)
	n := w.flows()["from a container to another"]
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		for _, opened := range []bool{false, true} {
			e := n.entry(protocol, v6)
			a := answer{
				prepare: func() {},
				p:       e.packet(w, replying, false), other: e.packet(w, replying, false),
				change: func() error { return w.create(e) }, restore: func() error { return w.delete(e) },
				changed: left,
			}
			a.other.dst = netip.MustParseAddr("192.0.2.1")
			if v6 {
				a.other.dst = netip.MustParseAddr("2001:db8::1")
			}
			if opened {
				a.turn, a.atOnce = e.packet(w, original, false), true
				if protocol == unix.IPPROTO_TCP {
					a.turn.flags = syn
				}
			}
			w.wantForATick(t, a)
		}
	})
}

// Datagrams that nobody answers are the stack's, without a question for each. The
// first answer is known at once, on all CPUs; one that did not come by a program, a
// tick later.
func TestUnansweredDatagramsAreLeftForATick(t *testing.T) {
	const unanswered, checkIn = ZiplineReasonREASON_NEXT_NOT_ESTABLISHED, ZiplineReasonREASON_NEXT_CHECK_IN
	w := newTrackingWorld(t)
	for _, n := range w.turnFlows() {
		for _, v6 := range []bool{false, true} {
			for _, seen := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/%v", n.name, protocolName(unix.IPPROTO_UDP, v6), seen), func(t *testing.T) {
					e := n.entry(unix.IPPROTO_UDP, v6)
					answered := *e
					e.status, e.timeout = confirmed, udpYoungTimeout
					p := e.packet(w, original, false)
					var first, second outcome
					withinATick(t, func() {
						_ = w.delete(e) // of the try before
						w.add(t, e)
						w.notePorts(t)
						nextTick(t) // what was sent before may have been a turn
						nextTick(t)
					}, func() {
						first = w.sendBy(t, 0, p)
						if seen {
							w.sendBy(t, ebpf.MustPossibleCPU()-1, e.packet(w, replying, false))
						}
						w.change(t, &answered)
						second = w.sendBy(t, 0, p)
					})
					defer w.remove(t, e)
					nextTick(t)
					third := w.sendBy(t, 0, p)
					want := []Reason{unanswered, unanswered, checkIn}
					if seen {
						want[1] = checkIn
					}
					for i, got := range []outcome{first, second, third} {
						if got.reason != want[i] || got.verdict != nextVerdict {
							t.Errorf("datagram %d: %s, verdict %d, want %s", i, got.reason, got.verdict, want[i])
						}
					}
				})
			}
		}
	}
}

// What is known of a flow says nothing about the packet, nor about the two ends.
func TestEachPacketIsCheckedWhateverIsKnown(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		for _, known := range []bool{false, true} {
			e := w.translations()[0].entry(protocol, v6)
			e.mark = slowMark
			if known {
				w.add(t, e)
			}
			for name, row := range w.checks(v6, known) {
				t.Run(fmt.Sprintf("%s, known %v", name, known), func(t *testing.T) {
					p := e.packet(w, original, false)
					a := answer{
						prepare: func() {
							if known {
								w.admit(t, e, original|replying)
							}
						},
						p: p, then: e.packet(w, original, false), atOnce: true, changed: left,
						change: func() error { return nil }, restore: func() error { return nil },
					}
					if row.packet != nil {
						row.packet(a.then)
					} else {
						a.change, a.restore = row.change, w.publishAll
					}
					a.other = a.then
					w.wantForATick(t, a)
				})
			}
			if known {
				w.remove(t, e)
			}
		}
	})
}

// What the stack gets of a flow whose other packets are carried is admitted by to_device.
func TestToDeviceIsToldWhatIsKnown(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := w.translations()[0].entry(protocol, v6)
		w.add(t, e)
		p, large := e.packet(w, original, false), e.packet(w, original, false)
		large.payload = make([]byte, defaultMTU)
		var carried outcome
		var said uint16
		withinATick(t, func() { w.admit(t, e, original|replying) }, func() {
			carried = w.sendBy(t, 0, p)
			said = w.said(t, large.hook(), large.bytes(), large.context(), staging{})
		})
		if carried.verdict != redirVerdict {
			t.Errorf("verdict is %d, not carried", carried.verdict)
		}
		if want := uint16(admitWord | original); said != want {
			t.Errorf("to_device is told %#x, want %#x", said, want)
		}
		w.remove(t, e)
	})
}

// TCP and UDP between the same ends are two flows, whose answers have one place.
func TestAnswersAreAboutOneProtocol(t *testing.T) {
	w := newTrackingWorld(t)
	tried := 0
	for _, n := range w.translations() {
		for _, v6 := range []bool{false, true} {
			udp := n.entry(unix.IPPROTO_UDP, v6)
			p := udp.packet(w, original, false)
			if udp.packet(w, original, true).dst == p.dst {
				continue // a stranger may go there
			}
			tried++
			stranger := n.entry(unix.IPPROTO_TCP, v6).packet(w, original, false)
			w.add(t, udp)
			var carried, other outcome
			withinATick(t, func() { w.admit(t, udp, original|replying) }, func() {
				carried = w.sendBy(t, 0, p)
				other = w.sendBy(t, 0, stranger)
			})
			if carried.verdict != redirVerdict {
				t.Errorf("verdict is %d, not carried", carried.verdict)
			}
			if err := left(other); err != nil {
				t.Errorf("TCP, when UDP is known: %v", err)
			}
			w.remove(t, udp)
		}
	}
	if tried == 0 {
		t.Error("no translation of a destination")
	}
}

// check is what leaves a packet between a and b to the stack: a change of the packet or
// of an endpoint.
type check struct {
	packet func(*packet)
	change func() error
}

func (w *world) checks(v6, known bool) map[string]check {
	a, b := w.peers["a"], w.peers["b"]
	with := func(p *peer, change func(*peer)) func() error {
		return func() error {
			c := copyPeer(p)
			change(c)
			return w.publish(c)
		}
	}
	rows := map[string]check{
		"too large":                        {packet: func(p *packet) { p.payload = make([]byte, defaultMTU) }},
		"ttl 0":                            {packet: func(p *packet) { p.ttl = 0 }},
		"deleted":                          {change: func() error { return w.objs.Endpoints.Delete(key(b.addrs().of(v6))) }},
		"smaller MTU":                      {change: with(b, func(p *peer) { p.mtu = 30 })},
		"sender forwarded by the kernel":   {change: with(a, func(p *peer) { p.flags = sourceCheck })},
		"receiver forwarded by the kernel": {change: with(b, func(p *peer) { p.flags = sourceCheck })},
	}
	if known {
		rows["ttl 1"] = check{packet: func(p *packet) { p.ttl = 1 }}
		rows["mark of the sender"] = check{change: with(a, func(p *peer) { p.slowMark = slowMark })}
		rows["mark of the receiver"] = check{change: with(b, func(p *peer) { p.slowMark = slowMark })}
	}
	return rows
}

// publishAll makes the endpoints what they were.
func (w *world) publishAll() (err error) {
	for _, p := range w.peers {
		err = errors.Join(err, w.publish(p))
	}
	return err
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
