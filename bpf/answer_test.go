// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// clock is a program that tells the jiffies.
var clock = sync.OnceValues(func() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.FnJiffies64.Call(),
		asm.Return(),
	}})
})

// tick asks the kernel for the jiffies.
func tick(tb testing.TB) uint32 {
	tb.Helper()
	p, err := clock()
	if err != nil {
		tb.Fatal(err)
	}
	now, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	if err != nil {
		tb.Fatal(err)
	}
	return now
}

// nextTick waits for the beginning of a tick and returns it.
func nextTick(tb testing.TB) uint32 {
	tb.Helper()
	for begin := tick(tb); ; {
		if now := tick(tb); now != begin {
			return now
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// withinATick prepares and does something again and again until it was done in
// one tick.
func withinATick(tb testing.TB, prepare, do func()) {
	tb.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		prepare()
		begin := nextTick(tb)
		do()
		if tick(tb) == begin {
			return
		}
	}
	tb.Fatal("never quick enough")
}

// sendBy runs the program on a packet on this CPU.
func (w *world) sendBy(tb testing.TB, cpu int, p *packet) outcome {
	tb.Helper()
	return w.send(tb, p, func(run func() error) error {
		// The thread of the world runs the packets.
		var all, one unix.CPUSet
		one.Set(cpu)
		if err := errors.Join(unix.SchedGetaffinity(0, &all), unix.SchedSetaffinity(0, &one)); err != nil {
			return err
		}
		return errors.Join(run(), unix.SchedSetaffinity(0, &all))
	})
}

// answer is what the kernel says about a packet, until it is changed.
type answer struct {
	// prepare is done before each try.
	prepare func()
	p       *packet
	// turn is sent after p, by another CPU where there is one.
	turn            *packet
	change, restore func() error
	// then is sent after the change, where it is not p again.
	then *packet
	// atOnce says that the change shows in the same tick.
	atOnce bool
	// other is a packet of which nothing is known.
	other *packet
	// changed returns nil for a packet to which the change has been applied.
	changed func(outcome) error
}

// wantForATick sends a packet that is carried, changes what the kernel would say,
// and sends it once more, all in one tick, on one CPU: nothing has changed, but
// for other packets. In the next tick it has.
func (w *world) wantForATick(t *testing.T, a answer) {
	t.Helper()
	if a.then == nil {
		a.then = a.p
	}
	var first, second outcome
	mended := true
	mend := func() {
		if err := a.restore(); err != nil {
			t.Fatal(err)
		}
		mended = true
	}
	withinATick(t, func() {
		if !mended {
			mend()
		}
		w.notePorts(t)
		a.prepare()
		// What was left to the stack before may have been noted as a turn.
		nextTick(t)
		nextTick(t)
	}, func() {
		first = w.sendBy(t, 0, a.p)
		if a.turn != nil {
			w.sendBy(t, ebpf.MustPossibleCPU()-1, a.turn)
		}
		mended = false
		if err := a.change(); err != nil {
			t.Fatal(err)
		}
		second = w.sendBy(t, 0, a.then)
	})
	other := w.sendBy(t, 0, a.other)
	nextTick(t)
	third := w.sendBy(t, 0, a.then)
	mend()
	if first.verdict != redirVerdict || a.changed(first) == nil {
		t.Errorf("before the change: %d %x", first.verdict, head(first.data))
	}
	if err := a.changed(second); a.atOnce != (err == nil) {
		t.Errorf("in the same tick, when it has to change at once %v: %v", a.atOnce, err)
	}
	if err := a.changed(other); err != nil {
		t.Errorf("another packet: %v", err)
	}
	if err := a.changed(third); err != nil {
		t.Errorf("a tick after the change: %v", err)
	}
}

func TestWaysOutHoldForATick(t *testing.T) {
	w := newTrackingWorld(t)
	moved := net.HardwareAddr{2, 0xee, 0, 0, 0, 1}
	tried := map[bool]int{}
	for _, n := range w.translations() {
		for _, v6 := range []bool{false, true} {
			e := n.entry(unix.IPPROTO_UDP, v6)
			p, other := e.packet(w, original, false), e.packet(w, original, false)
			if _, reason := e.carried(w, original, p); reason != ZiplineReasonREASON_TRACKED_UPLINK {
				continue
			}
			out := e.packet(w, original, true)
			tried[out.src != p.src]++
			set := func(mac net.HardwareAddr) func() error {
				neigh := &netlink.Neigh{LinkIndex: w.uplink.index, IP: out.dst.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT}
				return func() error { return w.do(func() error { return netlink.NeighSet(neigh) }) }
			}
			other.tos = 8
			w.add(t, e)
			w.wantForATick(t, answer{
				prepare: func() { w.admit(t, e, original|replying) },
				p:       p, other: other, change: set(moved), restore: set(gatewayMAC),
				changed: func(got outcome) error {
					if got.verdict != redirVerdict || net.HardwareAddr(got.data[:6]).String() != moved.String() {
						return errors.New("not to the neighbour's new MAC")
					}
					return nil
				},
			})
			w.remove(t, e)
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
		w.add(t, e)
		w.add(t, another)
		w.wantForATick(t, answer{
			prepare: func() {
				w.admit(t, e, original|replying)
				w.admit(t, another, original|replying)
			},
			p: e.packet(w, original, false), other: another.packet(w, original, false),
			change: func() (err error) {
				for _, addr := range []netip.Addr{remote[i], neighbour} {
					err = errors.Join(err, w.objs.Endpoints.Put(key(addr), ZiplineEndpoint{Ifindex: uint32(w.peers["b"].index)}))
				}
				return err
			},
			restore: func() error {
				return errors.Join(w.objs.Endpoints.Delete(key(remote[i])), w.objs.Endpoints.Delete(key(neighbour)))
			},
			changed: left,
		})
	}
}

// place is where from_uplink keeps the answer about what a remote sends to a container.
func (w *world) place(container, remote netip.Addr) uint32 {
	c, r := key(container), key(remote)
	return (c.W[3] ^ r.W[3] ^ r.W[2] ^ r.W[1] ^ uint32(w.uplink.index)) * 0x9e3779b1 >> 23
}

// left returns nil for a packet that the stack gets.
func left(got outcome) error {
	if got.verdict != nextVerdict {
		return fmt.Errorf("verdict is %d, not left to the stack", got.verdict)
	}
	return nil
}
