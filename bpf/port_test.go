// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ports is what the world does with the table of noted ports.
type ports struct {
	noted time.Time
	// byHand says that the test notes the ports itself.
	byHand bool
}

// notePorts notes all ports once a second, so that from_uplink asks conntrack
// about every packet: what the other tests are about.
func (w *world) notePorts(tb testing.TB) {
	tb.Helper()
	if w.ports.byHand || time.Since(w.ports.noted) < time.Second {
		return
	}
	w.notedAgo(tb, 0)
	w.ports.noted = time.Now()
}

// notedAgo makes all ports as noted so many cells of the clock ago.
func (w *world) notedAgo(tb testing.TB, cells uint8) {
	tb.Helper()
	w.setPorts(tb, portClock(tb)-cells)
}

// setPorts makes all ports as seen at that time, and as asked about now.
func (w *world) setPorts(tb testing.TB, seen uint8) {
	tb.Helper()
	var v ZiplineNatPorts
	asked := portClock(tb)
	for i := range v.Port {
		v.Port[i].Seen, v.Port[i].Asked = seen, asked
	}
	if err := w.objs.NatPorts.Put(uint32(0), &v); err != nil {
		tb.Fatal(err)
	}
}

// noted returns when a port was last noted.
func (w *world) noted(tb testing.TB, port uint16) uint8 {
	tb.Helper()
	var v ZiplineNatPorts
	if err := w.objs.NatPorts.Lookup(uint32(0), &v); err != nil {
		tb.Fatal(err)
	}
	return v.Port[binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))].Seen
}

// portClock returns what port_clock() makes of the jiffies.
func portClock(tb testing.TB) uint8 {
	tb.Helper()
	return uint8(tick(tb) >> 8)
}

// portCells is how long a port is remembered, in cells of 256 jiffies.
func portCells() uint8 { return uint8(8*tickRate()>>8) + 1 }

// withinOneCell repeats f until the clock did not go on meanwhile.
func withinOneCell(tb testing.TB, f func()) {
	tb.Helper()
	for begin := portClock(tb); ; begin = portClock(tb) {
		if f(); portClock(tb) == begin {
			return
		}
	}
}

// translatedIn returns a flow from outside to a container, by a port of the node.
func (w *world) translatedIn(tb testing.TB, protocol byte, v6 bool) *entry {
	tb.Helper()
	e := w.flows()["from outside to a container"].entry(protocol, v6)
	w.add(tb, e)
	tb.Cleanup(func() { w.remove(tb, e) })
	w.admit(tb, e, original|replying)
	w.ports.byHand = true
	return e
}

func TestUplinkAsksConntrackAboutRecentPortsOnly(t *testing.T) {
	w := newTrackingWorld(t)
	const unknown = ZiplineReasonREASON_NEXT_NO_ENDPOINT
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := w.translatedIn(t, protocol, v6)
		p := e.packet(w, original, false)
		frame, ctx := p.bytes(), p.context()
		_, carried := e.carried(w, original, p)
		if !w.mends(e, original, p) {
			carried = ZiplineReasonREASON_NEXT_CHECKSUM
		}
		for _, tc := range []struct {
			name string
			ago  uint8
			want Reason
		}{
			{"now", 0, carried},
			{"as long ago as is remembered", portCells() - 1, carried}, // the clock may go on meanwhile
			{"longer ago", portCells() + 1, unknown},
			{"half of the clock ago", 128, unknown},
			{"in time to come", 0xff - portCells(), unknown},
		} {
			t.Run(tc.name, func(t *testing.T) {
				var got outcome
				var admit uint16
				withinOneCell(t, func() {
					w.inTime(t, e, func() {
						w.notedAgo(t, tc.ago)
						got = w.runHook(t, HookUplink, frame, ctx, staging{})
						admit = w.said(t, HookUplink, frame, ctx, staging{})
					})
				})
				if _, ok := got.counted[tc.want]; !ok {
					t.Errorf("counted as %v, want %s", got.counted, tc.want)
				}
				if tc.want == unknown && admit != 0 {
					t.Errorf("asks to_device for %#x", admit)
				}
			})
		}
	})
}

// A container that does not answer notes nothing.
func TestUplinkAsksAboutOtherPortsOnceInAWhile(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := w.translatedIn(t, protocol, v6)
		frame, ctx := e.packet(w, original, false).bytes(), e.packet(w, original, false).context()
		var first, second outcome
		stranger := e.packet(w, original, false)
		stranger.sport++ // not in conntrack
		withinOneCell(t, func() {
			w.setPorts(t, portClock(t)-128)
			w.forgetAsking(t)
			first = w.runHook(t, HookUplink, stranger.bytes(), stranger.context(), staging{})
			second = w.runHook(t, HookUplink, frame, ctx, staging{})
		})
		if first.counted[ZiplineReasonREASON_NEXT_UNTRACKED].Packets != 1 || second.counted[ZiplineReasonREASON_NEXT_NO_ENDPOINT].Packets != 1 {
			t.Errorf("counted as %v, then %v", first.counted, second.counted)
		}
	})
}

// forgetAsking makes all ports as asked about long ago.
func (w *world) forgetAsking(tb testing.TB) {
	tb.Helper()
	var v ZiplineNatPorts
	if err := w.objs.NatPorts.Lookup(uint32(0), &v); err != nil {
		tb.Fatal(err)
	}
	for i := range v.Port {
		v.Port[i].Asked -= 128
	}
	if err := w.objs.NatPorts.Put(uint32(0), &v); err != nil {
		tb.Fatal(err)
	}
}

func TestContainersOwnAddressIsAskedAboutWhateverThePort(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := w.untranslatedIn(protocol, v6)
		w.add(t, e)
		t.Cleanup(func() { w.remove(t, e) })
		w.admit(t, e, original|replying)
		w.ports.byHand = true
		w.notedAgo(t, 128)
		w.wantCarried(t, e, original, e.packet(w, original, false))
	})
}

// untranslatedIn returns a flow from outside to a container's own address.
func (w *world) untranslatedIn(protocol byte, v6 bool) *entry {
	for _, n := range w.translations() {
		e := n.entry(protocol, v6)
		if p := e.packet(w, original, false); p.hook() == HookUplink && !e.translatesAnything() {
			return e
		}
	}
	return nil
}

// translatesAnything says whether the reply is not just the inverse.
func (e *entry) translatesAnything() bool {
	return e.reply[0] != e.orig[1] || e.reply[1] != e.orig[0]
}

func TestPortsAreNotedByWhatIsTranslated(t *testing.T) {
	w := newTrackingWorld(t)
	w.ports.byHand = true
	for _, n := range w.translations() {
		for _, v6 := range []bool{false, true} {
			e := n.entry(unix.IPPROTO_UDP, v6)
			w.add(t, e)
			for _, direction := range []int{original, replying} {
				w.wantNoted(t, n.name+", checking in", e, direction)
			}
			w.admit(t, e, original|replying)
			for _, direction := range []int{original, replying} {
				w.wantNoted(t, n.name, e, direction)
			}
			w.remove(t, e)
		}
	}
}

// wantNoted sends one packet and checks which port was noted, and that no other was.
func (w *world) wantNoted(t *testing.T, name string, e *entry, direction int) {
	t.Helper()
	p := e.packet(w, direction, false)
	other := e.reply
	if direction == replying {
		other = e.orig
	}
	port, want := other[1].Port(), false
	switch {
	case p.hook() == HookUplink:
		// Renewed, so that it outlasts a container that never answers.
		port, want = p.dport, e.admitted.IsZero() || w.mends(e, direction, p)
	default:
		want = other[1] != netip.AddrPortFrom(p.src, p.sport)
	}
	var old uint8
	var got outcome
	withinOneCell(t, func() {
		old = portClock(t) - 2
		w.setPorts(t, old)
		got, _ = w.whileAdmitted(t, e, p)
	})
	if to := w.holder(e.packet(w, direction, true).dst); p.hook() == HookUplink && got.slot != to.slot {
		t.Errorf("%s, direction %d: %v counted in slot %d, the destination's is %d", name, direction, got.counted, got.slot, to.slot)
	}
	if is := w.noted(t, port) != old; is != want {
		t.Errorf("%s, direction %d: port %d noted %v, want %v (%v)", name, direction, port, is, want, got.counted)
	}
	var v ZiplineNatPorts
	if err := w.objs.NatPorts.Lookup(uint32(0), &v); err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, p := range v.Port {
		if p.Seen != old {
			changed++
		}
	}
	if changed > 1 {
		t.Errorf("%s, direction %d: %d ports noted", name, direction, changed)
	}
}

// What conntrack does not know is counted for the container that it is for, also
// where its port is one that others are reached by.
func TestWhatIsUnknownIsCountedForItsContainer(t *testing.T) {
	w := newTrackingWorld(t)
	a := w.peers["a"]
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		for to, want := range map[netip.Addr]uint16{a.addrs()[family(v6)]: a.slot, nodeIP[family(v6)]: 0} {
			p := tcp(copyPeer(w.uplink), to)
			p.src, p.protocol, p.sport, p.dport = remote[family(v6)], protocol, clientPort, 7777
			got := w.runHook(t, HookUplink, p.bytes(), p.context(), staging{})
			w.wantReason(t, got, ZiplineReasonREASON_NEXT_UNTRACKED, len(p.bytes()))
			if got.slot != want {
				t.Errorf("to %s: counted in slot %d, want %d", to, got.slot, want)
			}
		}
	})
}

func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}
