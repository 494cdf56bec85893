// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Status bits of a conntrack entry (enum ip_conntrack_status) and what else of
// its attributes has no name in package unix.
const (
	seenReply = 1 << 1
	assured   = 1 << 2
	confirmed = 1 << 3

	tcpEstablished = 3

	// What conntrack gives an established flow, in seconds.
	tcpTimeout      = 432000
	tcpUnackTimeout = 300
	udpTimeout      = 120
	udpYoungTimeout = 30
)

// entry is a flow in the conntrack of the world's namespace.
type entry struct {
	protocol    byte
	orig, reply [2]netip.AddrPort
	status      uint32
	state       uint8 // of TCP
	tcpFlags    uint8 // of TCP, of both directions
	timeout     uint32
	mark        uint32
	helper      string
	seqAdjust   bool
	// admitted is when to_device admitted these directions.
	admitted   time.Time
	directions uint16
	// observed is the direction that to_device sees for that, 0 for the original.
	observed int
}

// established returns an entry of which both directions have been seen. The
// tuples are as conntrack has them: the reply's begins with whom the original
// direction really went to.
func established(protocol byte, client, dst, server, seen netip.AddrPort) *entry {
	e := &entry{
		protocol: protocol,
		orig:     [2]netip.AddrPort{client, dst},
		reply:    [2]netip.AddrPort{server, seen},
		status:   confirmed | seenReply | assured,
		timeout:  udpTimeout,
	}
	if protocol == unix.IPPROTO_TCP {
		e.state, e.timeout = tcpEstablished, tcpTimeout
	}
	return e
}

// add enters the flow as if the stack had seen it so far.
func (w *world) add(tb testing.TB, e *entry) {
	tb.Helper()
	if err := w.create(e); err != nil {
		tb.Fatalf("create conntrack entry: %v", err)
	}
}

func (w *world) create(e *entry) error { return w.conntrack(e, mdl.Create|mdl.Excl) }

// change sets timeout, status and state of the entry anew.
func (w *world) change(tb testing.TB, e *entry) {
	tb.Helper()
	if err := w.conntrack(e, 0); err != nil {
		tb.Fatalf("change conntrack entry: %v", err)
	}
}

// remove takes the flow out of conntrack.
func (w *world) remove(tb testing.TB, e *entry) {
	tb.Helper()
	if err := w.delete(e); err != nil {
		tb.Fatalf("delete conntrack entry: %v", err)
	}
}

func (w *world) delete(e *entry) error {
	const del = 2 // IPCTNL_MSG_CT_DELETE
	return w.message(e, del, 0)
}

func (w *world) conntrack(e *entry, flags mdl.HeaderFlags) error { return w.message(e, 0, flags) }

func (w *world) message(e *entry, kind mdl.HeaderType, flags mdl.HeaderFlags) error {
	data, err := e.encode()
	if err != nil {
		return err
	}
	family := byte(unix.AF_INET)
	if e.orig[0].Addr().Is6() {
		family = unix.AF_INET6
	}
	return w.do(func() error {
		conn, err := mdl.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Execute(mdl.Message{
			Header: mdl.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | kind, Flags: mdl.Request | mdl.Acknowledge | flags},
			Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...),
		})
		return err
	})
}

func (e *entry) encode() ([]byte, error) {
	// enum ctattr_type and those below it.
	const (
		tupleOrig, tupleReply, status, protoInfo, help, timeout, mark, seqAdjOrig = 1, 2, 3, 4, 5, 7, 8, 15
		tcp, state, flagsOrig, flagsReply                                         = 1, 1, 4, 5
		helpName, seqPosition, seqBefore, seqAfter                                = 1, 1, 2, 3
	)
	a := newAttributes()
	a.Nested(tupleOrig, e.tuple(e.orig))
	a.Nested(tupleReply, e.tuple(e.reply))
	a.Uint32(status, e.status)
	a.Uint32(timeout, e.timeout)
	a.Uint32(mark, e.mark)
	if e.protocol == unix.IPPROTO_TCP {
		a.Nested(protoInfo, func(a *mdl.AttributeEncoder) error {
			a.Nested(tcp, func(a *mdl.AttributeEncoder) error {
				a.Uint8(state, e.state)
				a.Bytes(flagsOrig, []byte{e.tcpFlags, 0xff}) // struct nf_ct_tcp_flags: flags, mask
				a.Bytes(flagsReply, []byte{e.tcpFlags, 0xff})
				return nil
			})
			return nil
		})
	}
	if e.helper != "" {
		a.Nested(help, func(a *mdl.AttributeEncoder) error {
			a.String(helpName, e.helper)
			return nil
		})
	}
	if e.seqAdjust {
		a.Nested(seqAdjOrig, func(a *mdl.AttributeEncoder) error {
			a.Uint32(seqPosition, 1)
			a.Uint32(seqBefore, 1)
			a.Uint32(seqAfter, 1)
			return nil
		})
	}
	return a.Encode()
}

func newAttributes() *mdl.AttributeEncoder {
	a := mdl.NewAttributeEncoder()
	a.ByteOrder = binary.BigEndian
	return a
}

func (e *entry) tuple(t [2]netip.AddrPort) func(*mdl.AttributeEncoder) error {
	// enum ctattr_tuple and those below it.
	const (
		ip, proto, v4Src, v4Dst, v6Src, v6Dst = 1, 2, 1, 2, 3, 4
		number, srcPort, dstPort              = 1, 2, 3
	)
	return func(a *mdl.AttributeEncoder) error {
		a.Nested(ip, func(a *mdl.AttributeEncoder) error {
			src, dst := uint16(v4Src), uint16(v4Dst)
			if t[0].Addr().Is6() {
				src, dst = v6Src, v6Dst
			}
			a.Bytes(src, t[0].Addr().AsSlice())
			a.Bytes(dst, t[1].Addr().AsSlice())
			return nil
		})
		a.Nested(proto, func(a *mdl.AttributeEncoder) error {
			a.Uint8(number, e.protocol)
			a.Uint16(srcPort, t[0].Port())
			a.Uint16(dstPort, t[1].Port())
			return nil
		})
		return nil
	}
}

// The directions of a flow, as bits.
const (
	original = 1
	replying = 2
)

// admit lets to_device see a packet of the entry that came through the stack, with word of these directions from the program at ingress.
func (w *world) admit(tb testing.TB, e *entry, directions uint16) {
	tb.Helper()
	// The packet as it leaves: the answer to it is the reply's tuple.
	p := e.packet(w, max(e.observed, original), true)
	for deadline := time.Now().Add(10 * time.Second); ; {
		// As conntrack does when the packet comes in.
		w.change(tb, e)
		e.admitted, e.directions = time.Now(), directions
		got := w.runHook(tb, HookDevice, p.bytes(), p.context(), staging{tcIndex: admitWord | directions})
		if _, ok := got.counted[ZiplineReasonREASON_NEXT_ADMITTED]; ok {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("to_device does not admit the flow: %v", got.counted)
		}
	}
}

// inTime runs f before the admission of the flow, if it has one, can have run out,
// however slow the machine is: again where it may have.
func (w *world) inTime(tb testing.TB, e *entry, f func()) {
	tb.Helper()
	for {
		if !e.admitted.IsZero() && time.Since(e.admitted) > time.Second/2 {
			w.admit(tb, e, e.directions)
		}
		if f(); e.admitted.IsZero() || time.Since(e.admitted) < 3*time.Second/2 {
			return
		}
	}
}

// whileAdmitted runs the packet in time. Run again, when an answer of conntrack
// may be kept, it has to come out the same. It returns what to_device is told as
// well.
func (w *world) whileAdmitted(tb testing.TB, e *entry, p *packet) (got outcome, said uint16) {
	tb.Helper()
	frame, ctx := p.bytes(), p.context()
	var again outcome
	w.inTime(tb, e, func() {
		got = w.runHook(tb, p.hook(), frame, ctx, staging{})
		again = w.again(tb, p)
		said = w.said(tb, p.hook(), frame, ctx, staging{})
	})
	if again.verdict != got.verdict || again.mark != got.mark || !bytes.Equal(again.data, got.data) {
		tb.Errorf("verdict %d, then %d: mark %#x, then %#x: frame\n%x, then\n%x",
			got.verdict, again.verdict, got.mark, again.mark, head(got.data), head(again.data))
	}
	return got, said
}

// admitWord is ADMIT of lib/admission.h.
const admitWord = 0x7a40

// packet returns one of the entry's direction, before the node translates it or
// after. It comes from whoever has the source address: an endpoint or the uplink.
func (e *entry) packet(w *world, direction int, translated bool) *packet {
	from, to := e.orig[0], e.orig[1]
	if direction == replying {
		from, to = e.reply[0], e.reply[1]
	}
	if translated {
		other := e.reply
		if direction == replying {
			other = e.orig
		}
		from, to = other[1], other[0]
	}
	sender := w.holder(from.Addr())
	if sender == nil {
		sender = w.uplink
	}
	p := tcp(copyPeer(sender), to.Addr())
	p.src, p.protocol, p.sport, p.dport = from.Addr(), e.protocol, from.Port(), to.Port()
	return p
}

// addHelped enters the flow with its helper, or returns why the kernel has none.
func (w *world) addHelped(tb testing.TB, e *entry) error {
	tb.Helper()
	err := w.conntrack(e, mdl.Create|mdl.Excl)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		tb.Fatalf("create conntrack entry with helper: %v", err)
	}
	return err
}
