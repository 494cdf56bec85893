// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tick asks the kernel for the jiffies.
func tick(tb testing.TB) uint32 {
	tb.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.FnJiffies64.Call(),
		asm.Return(),
	}})
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	now, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	if err != nil {
		tb.Fatal(err)
	}
	return now
}

// answer is what the kernel says about a packet, until it is changed.
type answer struct {
	e *entry
	// other has its answer kept at the same place, and is asked about after the change.
	other           *packet
	change, restore func() error
	// changed returns nil for a packet to which the change has been applied.
	changed func(outcome) error
}

// wantForATick sends a packet that is carried, changes what the kernel would say,
// and sends it once more, all in one tick, on one CPU: nothing has changed, but
// for other packets. In the next tick it has. It tries until it was quick enough.
func (w *world) wantForATick(t *testing.T, a answer) {
	t.Helper()
	// The thread of the world runs the packets.
	var all, one unix.CPUSet
	one.Set(0)
	if err := w.do(func() error { return errors.Join(unix.SchedGetaffinity(0, &all), unix.SchedSetaffinity(0, &one)) }); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.do(func() error { return unix.SchedSetaffinity(0, &all) }) }()
	w.add(t, a.e)
	defer w.remove(t, a.e)
	p := a.e.packet(w, original, false)
	run := func(p *packet) outcome {
		out := skBuff{}
		opts := &ebpf.RunOptions{Data: p.bytes(), DataOut: make([]byte, 512), Context: p.context(), ContextOut: &out}
		var ret uint32
		err := w.do(func() (err error) {
			ret, err = w.program(p.hook()).Run(opts)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return outcome{verdict: int32(ret), data: opts.DataOut}
	}
	next := func() {
		for begin := tick(t); tick(t) == begin; {
			time.Sleep(time.Millisecond)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		w.admit(t, a.e, original|replying)
		next()
		begin := tick(t)
		first := run(p)
		err := w.do(a.change)
		second, end := run(p), tick(t)
		other := run(a.other)
		next()
		third := run(p)
		if err := errors.Join(err, w.do(a.restore)); err != nil {
			t.Fatal(err)
		}
		if first.verdict != redirVerdict || a.changed(first) == nil {
			t.Fatalf("before the change: %d %x", first.verdict, head(first.data))
		}
		if err := a.changed(other); err != nil {
			t.Fatalf("another packet: %v", err)
		}
		if err := a.changed(third); err != nil {
			t.Fatalf("a tick after the change: %v", err)
		}
		if begin == end {
			if a.changed(second) == nil {
				t.Error("the kernel is asked twice in a tick")
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("never two packets and a change in one tick")
		}
	}
}

func TestWaysOutHoldForATick(t *testing.T) {
	w := newTrackingWorld(t)
	moved := net.HardwareAddr{2, 0xee, 0, 0, 0, 1}
	tried := map[bool]int{}
	for _, n := range w.translations() {
		for _, v6 := range []bool{false, true} {
			e := n.entry(unix.IPPROTO_UDP, v6)
			p := e.packet(w, original, false)
			if _, reason := e.carried(w, original, p); reason != ZiplineReasonREASON_TRACKED_UPLINK {
				continue
			}
			out := e.packet(w, original, true)
			tried[out.src != p.src]++
			to := out.dst
			set := func(mac net.HardwareAddr) func() error {
				return func() error {
					return netlink.NeighSet(&netlink.Neigh{LinkIndex: w.uplink.index, IP: to.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
				}
			}
			p.tos = 8
			w.wantForATick(t, answer{e, p, set(moved), set(gatewayMAC), func(got outcome) error {
				if got.verdict != redirVerdict || net.HardwareAddr(got.data[:6]).String() != moved.String() {
					return errors.New("not to the neighbour's new MAC")
				}
				return nil
			}})
		}
	}
	if tried[true] == 0 || tried[false] == 0 {
		t.Errorf("tried %v flows with and without SNAT", tried)
	}
}

// An address that turns up as a container's of this node is not believed from outside.
func TestArrivalsHoldForATick(t *testing.T) {
	w := newTrackingWorld(t)
	for i, v6 := range []bool{false, true} {
		if v6 && !w.mendsIPv6 {
			continue
		}
		n := w.flows()["from outside to a container"]
		e := n.entry(unix.IPPROTO_UDP, v6)
		to := e.packet(w, original, true).dst
		neighbour := remote[i]
		for neighbour == remote[i] || w.place(to, neighbour) != w.place(to, remote[i]) {
			neighbour = neighbour.Next()
		}
		n.client[i] = neighbour
		another := n.entry(unix.IPPROTO_UDP, v6)
		w.add(t, another)
		publish := func() (err error) {
			for _, addr := range []netip.Addr{remote[i], neighbour} {
				err = errors.Join(err, w.objs.Endpoints.Put(key(addr), ZiplineEndpoint{Ifindex: uint32(w.peers["b"].index)}))
			}
			return err
		}
		withdraw := func() error {
			return errors.Join(w.objs.Endpoints.Delete(key(remote[i])), w.objs.Endpoints.Delete(key(neighbour)))
		}
		w.admit(t, another, original|replying)
		w.wantForATick(t, answer{e, another.packet(w, original, false), publish, withdraw, func(got outcome) error {
			if got.verdict != nextVerdict {
				return errors.New("not left to the stack")
			}
			return nil
		}})
		w.remove(t, another)
	}
}

// place is where from_uplink keeps the answer about what a remote sends to a container.
func (w *world) place(container, remote netip.Addr) uint32 {
	c, r := key(container), key(remote)
	return (c.W[3] ^ r.W[3] ^ r.W[2] ^ r.W[1] ^ uint32(w.uplink.index)) * 0x9e3779b1 >> 24
}
