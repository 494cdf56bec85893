// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The rules of the conntrack path, from the design as well.

// passage is a packet of a flow that conntrack knows: where it is to leave to,
// and with which addresses.
type passage struct {
	*entry
	direction int
	src, dst  netip.AddrPort
	l4        int
	// Of the packet that leaves.
	ethDst, ethSrc net.HardwareAddr
}

// known returns the flow that a packet belongs to, or nil.
func (r *rules) known(p *plain) *passage {
	for _, e := range r.flows {
		switch tuple := [2]netip.AddrPort{p.src, p.dst}; {
		case e.protocol != p.protocol:
		case tuple == e.orig:
			return &passage{entry: e, direction: original, src: e.reply[1], dst: e.reply[0], l4: p.l4}
		case tuple == e.reply:
			return &passage{entry: e, direction: replying, src: e.orig[1], dst: e.orig[0], l4: p.l4}
		}
	}
	return nil
}

// carries says whether the packet may be carried past the stack, and completes
// the passage.
func (r *rules) carries(f *passage, p *plain) bool {
	if f.status&seenReply == 0 || f.directions&uint16(f.direction) == 0 || p.ttl <= 1 {
		return false
	}
	if p.protocol == unix.IPPROTO_TCP && (f.status&assured == 0 || f.state != tcpEstablished || p.flags&0x07 != 0) {
		return false
	}
	if f.translates(p) && (len(r.frame) < 14+f.sumAt()+2 || !r.w.mendsIPv6 && r.fromUplink() && f.src.Addr().Is6()) {
		return false // no checksum to mend, or no way to
	}
	if !r.fromUplink() && (!r.leased(p.src.Addr()) || !r.device.forwards(f.entry)) {
		return false
	}
	if to := r.w.holder(f.dst.Addr()); to != nil {
		f.ethDst, f.ethSrc = to.mac, to.host
		if r.fromUplink() && r.w.holder(p.src.Addr()) != nil {
			return false
		}
		return to.index != r.device.index && to.forwards(f.entry) && p.largest <= int(to.mtu)
	}
	f.ethDst, f.ethSrc = gatewayMAC, r.w.uplink.host
	mtu := reachable[f.dst.Addr()]
	return !r.fromUplink() && p.largest <= mtu
}

// forwards says whether packets of the flow may pass the stack by on their way
// from and to the container.
func (p *peer) forwards(e *entry) bool { return p.flags&tracked != 0 && p.slowMark&e.mark == 0 }

// reachable has the MTU by which an address outside is reached over an uplink.
var reachable = func() map[netip.Addr]int {
	mtu := map[netip.Addr]int{}
	for i := range remote {
		mtu[remote[i]] = 1500
		mtu[behind("through the gateway")[i]] = 1500
		mtu[behind("small mtu")[i]] = 1300
	}
	return mtu
}()

func (f *passage) translates(p *plain) bool { return p.src != f.src || p.dst != f.dst }

// sumAt is where the TCP or UDP checksum is in the IP packet.
func (f *passage) sumAt() int {
	if f.protocol == unix.IPPROTO_TCP {
		return f.l4 + 16
	}
	return f.l4 + 6
}

// compare checks the packet that left, byte for byte but for the checksums: those
// of any packet are to be as right or wrong as they were.
func (f *passage) compare(t *testing.T, was, is []byte) {
	t.Helper()
	want := bytes.Clone(was)
	copy(want, f.ethDst)
	copy(want[6:], f.ethSrc)
	ip := want[14:]
	addresses, ttl := 12, 8
	if f.src.Addr().Is6() {
		addresses, ttl = 8, 7
	}
	ip[ttl]--
	copy(ip[addresses:], append(f.src.Addr().AsSlice(), f.dst.Addr().AsSlice()...))
	binary.BigEndian.PutUint16(ip[f.l4:], f.src.Port())
	binary.BigEndian.PutUint16(ip[f.l4+2:], f.dst.Port())
	if len(is) != len(was) {
		t.Fatalf("frame has %d bytes, had %d", len(is), len(was))
	}
	translated := !bytes.Equal(ip[addresses:f.l4+4], was[14+addresses:14+f.l4+4])
	if at := 14 + f.sumAt(); translated {
		f.compareSum(t, was, is, addresses)
		copy(want[at:at+2], is[at:])
	}
	if f.src.Addr().Is4() {
		if residue(was[14:34]) != residue(is[14:34]) {
			t.Errorf("checksum of the ip header is %x, was %x: the header is %x, was %x", is[24:26], was[24:26], is[14:34], was[14:34])
		}
		copy(want[24:26], is[24:])
	}
	if !bytes.Equal(is, want) {
		t.Fatalf("frame is now\n%x, the rules say\n%x: was\n%x", is, want, was)
	}
}

// compareSum checks the sum over TCP or UDP and the addresses.
func (f *passage) compareSum(t *testing.T, was, is []byte, addresses int) {
	t.Helper()
	at := 14 + f.sumAt()
	none := f.protocol == unix.IPPROTO_UDP && was[at] == 0 && was[at+1] == 0
	made := is[at] != 0 || is[at+1] != 0
	if none && made || f.protocol == unix.IPPROTO_UDP && !none && !made {
		t.Errorf("checksum is %x, was %x", is[at:at+2], was[at:at+2])
	}
	size := 2 * f.src.Addr().BitLen() / 8
	covered := func(frame []byte) []byte {
		return append(bytes.Clone(frame[14+addresses:14+addresses+size]), frame[14+f.l4:]...)
	}
	if !none && residue(covered(was)) != residue(covered(is)) {
		t.Errorf("checksum is %x, was %x: frame is\n%x, was\n%x", is[at:at+2], was[at:at+2], is, was)
	}
}

// residue is what the checksum of the bytes leaves over: 0 where it is right.
func residue(data []byte) uint16 { return onesSum(data, 0) % 0xffff }

// enterFlows fills conntrack with a fixed set of flows: every translation, and
// flows that lack something.
func (w *world) enterFlows(tb testing.TB) []*entry {
	tb.Helper()
	var all []*entry
	w.renewed = time.Now()
	enter := func(e *entry) {
		// Ports of its own: the translations share their addresses.
		client, seen := &e.orig[0], &e.reply[1]
		*client = netip.AddrPortFrom(client.Addr(), client.Port()+uint16(len(all)))
		*seen = netip.AddrPortFrom(seen.Addr(), seen.Port()+uint16(len(all)))
		w.add(tb, e)
		all = append(all, e)
	}
	for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, v6 := range []bool{false, true} {
			for _, n := range w.translations() {
				e := n.entry(protocol, v6)
				e.directions = original | replying
				enter(e)
			}
			for _, d := range w.destinations() {
				e := flowTo(d.client, d.server).entry(protocol, v6)
				e.directions = original | replying
				enter(e)
			}
			for _, n := range w.flows() {
				for _, change := range lacking {
					e := n.entry(protocol, v6)
					change(e)
					enter(e)
				}
			}
			a, marked := w.peers["a"].addrs(), w.peers["marked"].addrs()
			hairpin := translation{client: a, dst: service, server: a, seen: nodeIP}
			for _, n := range []translation{flowTo(a, marked), flowTo(marked, remote), flowTo(a, behind("small mtu")), hairpin} {
				e := n.entry(protocol, v6)
				e.directions, e.mark = original|replying, slowMark
				enter(e)
			}
		}
	}
	return all
}

// lacking are flows that are not carried, or in one direction only.
var lacking = []func(e *entry){
	func(e *entry) { e.directions = 0 },
	func(e *entry) { e.directions = original },
	func(e *entry) { e.directions = replying },
	func(e *entry) { e.status &^= seenReply },
	func(e *entry) { e.status &^= assured; e.timeout = udpYoungTimeout },
	func(e *entry) { e.state = 5 },
}

// keepAlive renews all flows now and then: those that no packet belongs to would
// expire on a slow machine, and their packets be nobody's.
func (w *world) keepAlive(tb testing.TB, flows []*entry) {
	tb.Helper()
	if time.Since(w.renewed) < udpYoungTimeout*time.Second/4 {
		return
	}
	for _, e := range flows {
		w.change(tb, e)
		e.admitted = time.Time{} // that takes the admission away
	}
	w.renewed = time.Now()
}

// keep admits the flow of a packet again when that was a while ago.
func (w *world) keep(tb testing.TB, f *passage) {
	tb.Helper()
	if f != nil && f.directions != 0 && time.Since(f.admitted) > time.Second/2 {
		w.admit(tb, f.entry, f.directions)
	}
}
