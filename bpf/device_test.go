// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wantNotAdmitted lets to_device see a packet of the flow and checks that it
// gives this reason.
func (w *world) wantNotAdmitted(t *testing.T, e *entry, reason Reason) {
	t.Helper()
	p := e.packet(w, original, true)
	w.wantSeen(t, p, staging{tcIndex: admitWord | original}, reason)
}

// wantSeen lets to_device see a packet and checks that it counts this reason, 0
// for none, and leaves the packet alone.
func (w *world) wantSeen(t *testing.T, p *packet, ready staging, reason Reason) {
	t.Helper()
	frame := p.bytes()
	got := w.runHook(t, HookDevice, frame, p.context(), ready)
	if reason == 0 {
		if len(got.counted) != 0 || got.verdict != nextVerdict {
			t.Errorf("verdict is %d, counted %v, want the packet not even counted", got.verdict, got.counted)
		}
	} else {
		w.wantReason(t, got, reason, len(frame))
	}
	if !bytes.Equal(got.data, frame) {
		t.Errorf("frame was\n%x, is\n%x", frame, got.data)
	}
}

// wantOnly checks that packets of these directions are carried, and no others.
func (w *world) wantOnly(t *testing.T, e *entry, directions uint16) {
	t.Helper()
	for _, d := range []int{original, replying} {
		p := e.packet(w, d, false)
		if directions&uint16(d) != 0 {
			w.wantCarried(t, e, d, p)
			continue
		}
		said := w.wantLeft(t, e, p, ZiplineReasonREASON_NEXT_CHECK_IN)
		if want := admitWord | uint16(d) | directions; said != want {
			t.Errorf("direction %d: to_device is told %#x, want %#x", d, said, want)
		}
	}
}

func TestDirectionsAreAdmittedOneByOne(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		for name, n := range w.flows() {
			for directions := uint16(0); directions <= original|replying; directions++ {
				t.Run(fmt.Sprintf("%s, %d", name, directions), func(t *testing.T) {
					e := n.entry(protocol, v6)
					w.add(t, e)
					defer w.remove(t, e)
					w.wantOnly(t, e, 0)
					w.admit(t, e, directions)
					w.wantOnly(t, e, directions)
					// conntrack takes it away with the next packet that comes in.
					e.admitted = time.Time{}
					w.change(t, e)
					w.wantOnly(t, e, 0)
				})
			}
		}
	})
}

// A packet that came in before the other direction was admitted does not undo
// that when it leaves.
func TestDirectionsAreAdmittedAtTheSameTime(t *testing.T) {
	w := newTrackingWorld(t)
	e := w.flows()["from outside to a container"].entry(unix.IPPROTO_TCP, false)
	w.add(t, e)
	p := e.packet(w, replying, true)
	for {
		w.admit(t, e, original)
		got := w.runHook(t, HookDevice, p.bytes(), p.context(), staging{tcIndex: admitWord | replying})
		if time.Since(e.admitted) < time.Second {
			w.wantReason(t, got, ZiplineReasonREASON_NEXT_ADMITTED, len(p.bytes()))
			break
		}
	}
	e.directions = original | replying
	w.wantOnly(t, e, original|replying)
}

func TestAdmissionEndsAfterSomeSeconds(t *testing.T) {
	w := newTrackingWorld(t)
	n := w.flows()["from a container to another"]
	flows := []*entry{n.entry(unix.IPPROTO_TCP, true), n.entry(unix.IPPROTO_UDP, true)}
	begin, end := make([]time.Time, len(flows)), make([]time.Time, len(flows)) // of the moment of admission
	for i, e := range flows {
		w.add(t, e)
		w.admit(t, e, original|replying)
		begin[i], end[i] = e.admitted, time.Now()
		e.admitted = time.Time{} // let it run out
	}
	for i, e := range flows {
		p := e.packet(w, original, false)
		for {
			before := time.Now()
			got := w.runHook(t, p.hook(), p.bytes(), p.context(), staging{})
			if _, ok := got.counted[ZiplineReasonREASON_NEXT_CHECK_IN]; ok {
				if age := time.Since(begin[i]); age < 1800*time.Millisecond {
					t.Errorf("the flow checks in after %s", age)
				}
				break
			}
			if age := before.Sub(end[i]); age > 2200*time.Millisecond {
				t.Fatalf("the flow need not check in after %s", age)
			}
			time.Sleep(10 * time.Millisecond)
		}
		w.wantOnly(t, e, 0)
	}
}

// Only the timeout that conntrack gives such an entry leaves room for the sign.
func TestTimeoutsOfOtherMakeAreLeftAlone(t *testing.T) {
	const (
		tcp, udp    = unix.IPPROTO_TCP, unix.IPPROTO_UDP
		unacked     = 0x10 // IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED
		fixed       = 1 << 10
		yes, no     = ZiplineReasonREASON_NEXT_ADMITTED, ZiplineReasonREASON_NEXT_TIMEOUT
		young       = confirmed | seenReply
		established = young | assured
	)
	w := newTrackingWorld(t)
	for _, c := range []struct {
		name     string
		protocol byte
		status   uint32
		tcpFlags uint8
		timeout  uint32
		want     Reason
	}{
		{"tcp", tcp, established, 0, tcpTimeout, yes},
		{"tcp with data that nobody acknowledged", tcp, established, unacked, tcpUnackTimeout, yes},
		{"tcp with data that nobody acknowledged, but the long timeout", tcp, established, unacked, tcpTimeout, no},
		{"tcp that was aged to the other timeout", tcp, established, 0, tcpUnackTimeout, no},
		{"tcp a while ago", tcp, established, 0, tcpTimeout - 3, no},
		{"tcp with a longer timeout", tcp, established, 0, tcpTimeout + 10, no},
		{"tcp with a fixed timeout", tcp, established | fixed, 0, tcpTimeout, no},
		{"udp", udp, established, 0, udpTimeout, yes},
		{"young udp", udp, young, 0, udpYoungTimeout, yes},
		{"young udp with the long timeout", udp, young, 0, udpTimeout, no},
		{"udp that was aged to the other timeout", udp, established, 0, udpYoungTimeout, no},
		{"udp a while ago", udp, established, 0, udpTimeout - 3, no},
		{"udp with a fixed timeout", udp, established | fixed, 0, udpTimeout, no},
	} {
		for _, v6 := range []bool{false, true} {
			t.Run(c.name+"/"+protocolName(c.protocol, v6), func(t *testing.T) {
				e := w.flows()["from a container to outside"].entry(c.protocol, v6)
				e.status, e.tcpFlags, e.timeout = c.status, c.tcpFlags, c.timeout
				w.add(t, e)
				defer w.remove(t, e)
				if c.want == yes {
					w.admit(t, e, original|replying)
					w.wantOnly(t, e, original|replying)
					return
				}
				w.wantNotAdmitted(t, e, no)
				w.wantOnly(t, e, 0)
			})
		}
	}
}

// A flow that grew old passes through the time that other flows have left when
// they are admitted.
func TestAgedFlowsCheckIn(t *testing.T) {
	w := newTrackingWorld(t)
	for _, c := range []struct {
		protocol byte
		left     uint32
	}{{unix.IPPROTO_UDP, udpYoungTimeout + 1}, {unix.IPPROTO_TCP, tcpUnackTimeout + 1}} {
		e := w.flows()["from outside to a container"].entry(c.protocol, false)
		e.timeout = c.left
		w.add(t, e)
		// What is taken for the sign depends on the time.
		for range 40 {
			w.change(t, e)
			w.wantOnly(t, e, 0)
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func TestWhatToDeviceLooksAt(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := w.flows()["from outside to a container"].entry(protocol, v6)
		w.add(t, e)
		asked := staging{tcIndex: admitWord | original}
		for _, c := range []struct {
			name   string
			ready  staging
			change func(p *packet)
			want   Reason
		}{
			{"nobody asked", staging{}, nil, 0},
			{"somebody else's word", staging{tcIndex: 1}, nil, 0},
			{"somebody else's word with our bits", staging{tcIndex: 0x7a44 | original}, nil, 0},
			{"a flow that conntrack does not know", asked, func(p *packet) { p.sport++ }, ZiplineReasonREASON_NEXT_UNTRACKED},
			{"a packet before its translation", asked, func(p *packet) { *p = *e.packet(w, original, false) }, ZiplineReasonREASON_NEXT_UNTRACKED},
			{"neither ipv4 nor ipv6", asked, func(p *packet) { p.etherType = typeARP }, ZiplineReasonREASON_NEXT_ETHERTYPE},
			{"another version", asked, func(p *packet) { p.raw = set(14, 0x55) }, ZiplineReasonREASON_NEXT_MALFORMED},
			{"ports cut off", asked, func(p *packet) { p.layer4 = []byte{1, 2} }, ZiplineReasonREASON_NEXT_MALFORMED},
			{"another protocol", asked, func(p *packet) { p.protocol, p.layer4 = unix.IPPROTO_SCTP, make([]byte, 16) }, ZiplineReasonREASON_NEXT_PROTOCOL},
			{"to a group", asked, func(p *packet) { p.dst = pair{netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("ff02::1")}.of(v6) }, ZiplineReasonREASON_NEXT_GROUP},
			{"hop limit 0", asked, func(p *packet) { p.ttl = 0 }, ZiplineReasonREASON_NEXT_TTL},
		} {
			t.Run(c.name, func(t *testing.T) {
				p := e.packet(w, original, true)
				if c.change != nil {
					c.change(p)
				}
				w.wantSeen(t, p, c.ready, c.want)
				w.wantOnly(t, e, 0)
			})
		}
	})
}

// Frames that are not plain are not looked up, and those of any size are.
func TestWhatFramesToDeviceReads(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := w.flows()["from outside to a container"].entry(protocol, v6)
		w.add(t, e)
		for _, r := range ofFrame() {
			plain := r.want == ZiplineReasonREASON_NEXT_OTHERHOST || r.want == ZiplineReasonREASON_NEXT_GROUP || r.want == ZiplineReasonREASON_NEXT_CHECKSUM
			if plain || r.protocol != 0 && r.protocol != protocol || r.family == 4 && v6 || r.family == 6 && !v6 {
				continue
			}
			t.Run(r.name, func(t *testing.T) {
				p := e.packet(w, original, true)
				r.packet(w, p)
				w.wantSeen(t, p, staging{tcIndex: admitWord | original}, r.want)
			})
		}
		sizes := []func(*packet){segments(1000), chained(segments(1000), withoutLength)}
		if protocol == unix.IPPROTO_TCP && v6 {
			sizes = append(sizes, chained(segments(1000), jumbo))
		}
		for _, size := range sizes {
			for admitted := false; !admitted; { // again where the entry has grown too old meanwhile
				w.change(t, e)
				began := time.Now()
				p := e.packet(w, original, true)
				size(p)
				got := w.runHook(t, HookDevice, p.bytes(), p.context(), staging{tcIndex: admitWord | original})
				_, admitted = got.counted[ZiplineReasonREASON_NEXT_ADMITTED]
				if !admitted && time.Since(began) < time.Second/2 {
					t.Fatalf("a packet of %d segments is counted %v", p.gsoSegs, got.counted)
				}
			}
		}
	})
}

func TestToDeviceTakesTheWordWithIt(t *testing.T) {
	w := newTrackingWorld(t)
	e := w.flows()["from outside to a container"].entry(unix.IPPROTO_TCP, false)
	w.add(t, e)
	p := e.packet(w, original, true)
	for word, want := range map[uint16]uint16{admitWord | original: 0, 0x1234: 0x1234} {
		if have := w.said(t, HookDevice, p.bytes(), p.context(), staging{tcIndex: word}); have != want {
			t.Errorf("tc_index was %#x, is %#x, want %#x", word, have, want)
		}
	}
	for hook, from := range map[Hook]*peer{HookEndpoint: w.peers["a"], HookUplink: w.uplink} {
		p := tcp(copyPeer(from), outside(w.peers["b"].v4))
		if from == w.uplink {
			p.src = remote.of(false)
		}
		if have := w.said(t, hook, p.bytes(), p.context(), staging{tcIndex: admitWord | original}); have != 0 {
			t.Errorf("%s leaves somebody's word %#x", hook, have)
		}
	}
}

func TestWithoutConntrackNothingIsAdmitted(t *testing.T) {
	w := newWorld(t, false)
	e := w.flows()["from outside to a container"].entry(unix.IPPROTO_TCP, false)
	w.add(t, e)
	w.wantNotAdmitted(t, e, ZiplineReasonREASON_NEXT_UNTRACKED)
}

// A timeout in jiffies that is no 31 bit number of milliseconds cannot be handed
// to the kernel.
func TestTimeoutsThatAreTooLongAreLeftAlone(t *testing.T) {
	w := newTrackingWorld(t)
	for _, c := range []struct {
		seconds uint32
		want    Reason
	}{{2_000_000, ZiplineReasonREASON_NEXT_ADMITTED}, {2_200_000, ZiplineReasonREASON_NEXT_TIMEOUT}} {
		err := w.do(func() error {
			return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", fmt.Append(nil, c.seconds), 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
		e := w.flows()["from a container to another"].entry(unix.IPPROTO_TCP, false)
		e.timeout = c.seconds
		w.add(t, e)
		p := e.packet(w, original, true)
		got := w.runHook(t, HookDevice, p.bytes(), p.context(), staging{tcIndex: admitWord | original})
		w.wantReason(t, got, c.want, len(p.bytes()))
		w.remove(t, e)
	}
}
