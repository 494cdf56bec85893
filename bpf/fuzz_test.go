// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// FuzzPrograms feeds frames to the programs at ingress and compares what they do
// with the rules of model_test.go, both ways: they do nothing else, and all of it.
func FuzzPrograms(f *testing.F) {
	w := newWorld(f, true)
	var flows []*entry
	if haveConntrack() == nil {
		flows = w.enterFlows(f)
	}
	devices := []*peer{w.uplink}
	for _, p := range peers() {
		devices = append(devices, w.peers[p.name])
	}
	seed := func(device *peer, frame []byte, gso uint32) {
		for i, d := range devices {
			if d.name == device.name {
				f.Add(byte(i), frame, gso)
			}
		}
	}
	w.seedUntracked(seed)
	for _, e := range flows {
		for _, d := range []int{original, replying} {
			p := e.packet(w, d, false)
			seed(p.from, p.bytes(), 0)
		}
	}
	f.Fuzz(func(t *testing.T, device byte, frame []byte, gso uint32) {
		gso %= 1 << 16
		r := &rules{w: w, device: devices[int(device)%len(devices)], frame: frame, gso: int(gso), flows: flows}
		r.check(t)
	})
}

// seedUntracked makes packets that conntrack does not know.
func (w *world) seedUntracked(seed func(device *peer, frame []byte, gso uint32)) {
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
}

// check runs the program on the frame and compares. It returns what the rules
// say, and false if the kernel refuses to make a packet of the frame.
func (r *rules) check(t *testing.T) (ruling, bool) {
	t.Helper()
	if len(r.frame) < 14 {
		return ruling{}, false
	}
	for {
		want := r.judge()
		r.w.keepAlive(t, r.flows)
		r.w.keep(t, want.flow)
		got, ok := r.run(t)
		if !ok {
			return ruling{}, false
		}
		if want.flow != nil && time.Since(want.flow.admitted) > 3*time.Second/2 {
			continue // too slow: the admission may have run out
		}
		r.compare(t, want, got)
		return want, true
	}
}

// run runs the program of the device.
func (r *rules) run(t *testing.T) (outcome, bool) {
	t.Helper()
	r.w.notePorts(t)
	program := r.w.objs.FromEndpoint
	if r.fromUplink() {
		program = r.w.objs.FromUplink
	}
	ctx := skBuff{Ifindex: uint32(r.device.index), GSOSize: uint32(r.gso)}
	opts := &ebpf.RunOptions{Data: r.frame, DataOut: make([]byte, len(r.frame)+256), Context: ctx}
	var ret uint32
	err := r.w.do(func() (err error) {
		ret, err = program.Run(opts)
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

func (r *rules) compare(t *testing.T, want ruling, got outcome) {
	t.Helper()
	verdict, data := int32(nextVerdict), r.frame
	switch {
	case want.drop:
		verdict = dropVerdict
	case want.direct != nil:
		verdict = redirVerdict
		data = append(append(bytes.Clone(want.direct.mac), want.direct.host...), r.frame[12:]...)
	case want.flow != nil:
		verdict = redirVerdict
	case want.answer:
		verdict = redirVerdict
		data = r.answer()
	}
	if got.verdict != verdict {
		t.Fatalf("verdict is %d, the rules say %d: device %q, gso %d, frame %x", got.verdict, verdict, r.device.name, r.gso, r.frame)
	}
	if want.flow != nil {
		want.flow.compare(t, r.frame, got.data)
		return
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
