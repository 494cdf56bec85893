// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// FuzzFromEndpoint feeds frames to the program and compares what it does with
// the rules of model_test.go, both ways: it does nothing else, and all of it.
func FuzzFromEndpoint(f *testing.F) {
	w := newWorld(f, true)
	names := make([]string, 0, len(w.peers))
	for _, p := range peers() {
		names = append(names, p.name)
	}
	seed := func(device *peer, frame []byte, gso uint32) {
		for i, name := range names {
			if name == device.name {
				f.Add(byte(i), frame, gso)
			}
		}
	}
	for _, dst := range []netip.Addr{w.peers["b"].v4, w.peers["b"].v6} {
		rows := append(both(), only6()...)
		if dst.Is4() {
			rows = append(both(), only4()...)
		}
		for _, r := range rows {
			p := tcp(copyPeer(w.peers["a"]), dst)
			r.change(w, p)
			seed(p.from, p.bytes(), 0)
			seed(p.from, p.bytes(), 1400)
		}
	}
	for _, p := range w.peers {
		seed(p, whoHas(p, w.peers["b"].v4).bytes(), 0)
		probe := whoHas(p, w.peers["b"].v4)
		probe.sip = netip.IPv4Unspecified()
		seed(p, probe.bytes(), 0)
		seed(p, solicit(p, w.peers["b"].v6).bytes(), 0)
		dad := solicit(p, w.peers["b"].v6)
		probe6(dad)
		seed(p, dad.bytes(), 0)
	}
	f.Fuzz(func(t *testing.T, device byte, frame []byte, gso uint32) {
		gso %= 1 << 16
		p := w.peers[names[int(device)%len(names)]]
		got, ok := w.tryRun(t, frame, skBuff{Ifindex: uint32(p.index), GSOSize: gso})
		if !ok {
			return
		}
		r := &rules{w: w, device: p, frame: frame, gso: int(gso)}
		r.compare(t, got)
	})
}

// tryRun runs the program unless the kernel refuses to make a packet of the
// frame.
func (w *world) tryRun(t *testing.T, frame []byte, ctx skBuff) (outcome, bool) {
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: ctx}
	var ret uint32
	err := w.do(func() (err error) {
		ret, err = w.objs.FromEndpoint.Run(opts)
		return err
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOMEM) {
		return outcome{}, false
	}
	if err != nil {
		t.Fatalf("run program: %v", err)
	}
	return outcome{verdict: int32(ret), data: opts.DataOut}, true
}

func (r *rules) compare(t *testing.T, got outcome) {
	t.Helper()
	want := r.judge()
	verdict, data := int32(nextVerdict), r.frame
	switch {
	case want.drop:
		verdict = dropVerdict
	case want.carry != nil:
		verdict = redirVerdict
		data = append(append(bytes.Clone(want.carry.mac), want.carry.host...), r.frame[12:]...)
	case want.answer:
		verdict = redirVerdict
		data = r.answer()
	}
	if got.verdict != verdict {
		t.Fatalf("verdict is %d, the rules say %d: device %q, gso %d, frame %x", got.verdict, verdict, r.device.name, r.gso, r.frame)
	}
	if !bytes.Equal(got.data, data) {
		t.Fatalf("frame is now\n%x, the rules say\n%x: was %x", got.data, data, r.frame)
	}
}

// answer is the right reply to the ARP request or solicitation in the frame.
func (r *rules) answer() []byte {
	asker := bytes.Clone(r.frame[6:12])
	if binary.BigEndian.Uint16(r.frame[12:]) == typeARP {
		a := r.frame[14:]
		request := whoHas(r.device, netip.AddrFrom4([4]byte(a[24:28])))
		request.ethSrc, request.sha, request.sip = asker, a[8:14], netip.AddrFrom4([4]byte(a[14:18]))
		reply := request.answer()
		reply.tail = r.frame[42:]
		return reply.bytes()
	}
	ip := r.frame[14:]
	request := solicit(r.device, netip.AddrFrom16([16]byte(ip[48:64])))
	request.ethSrc, request.src = asker, netip.AddrFrom16([16]byte(ip[8:24]))
	return request.answer().bytes()
}
