// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// ns per packet of what the programs at ingress do, without the packet's way to
// them and from them. It is the time of the fastest of many short runs, since the
// machine adds and never takes, without what a run of an idle program takes.
func BenchmarkPrograms(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		family := "ipv4"
		if v6 {
			family = "ipv6"
		}
		toNeighbour := func(w *world) *packet { return tcp(w.peers["a"], w.peers["b"].addrs().of(v6)) }
		for _, c := range []struct {
			name      string
			conntrack bool
			packet    func(w *world) *packet
			want      Reason
		}{
			{"direct, no conntrack", false, toNeighbour, ZiplineReasonREASON_DIRECT},
			{"direct", true, toNeighbour, ZiplineReasonREASON_DIRECT},
			{"to outside, unknown", true, func(w *world) *packet { return tcp(w.peers["a"], outside(w.peers["b"].addrs().of(v6))) }, ZiplineReasonREASON_NEXT_NO_ENDPOINT},
			{"nobody's packet at the uplink", true, func(w *world) *packet {
				e := flowTo(remote, nodeIP).entry(unix.IPPROTO_TCP, v6)
				return e.packet(w, original, false)
			}, ZiplineReasonREASON_NEXT_UNTRACKED},
			{"the node's own flow at the uplink", true, func(w *world) *packet {
				e := flowTo(remote, nodeIP).entry(unix.IPPROTO_TCP, v6)
				w.add(b, e)
				return e.packet(w, original, false)
			}, ZiplineReasonREASON_NEXT_CHECK_IN},
		} {
			b.Run(c.name+"/"+family, func(b *testing.B) {
				w := newWorld(b, c.conntrack)
				w.bench(b, c.packet(w), c.want)
			})
		}
		benchmarkFlows(b, v6)
	}
}

// benchmarkFlows measures packets of established flows.
func benchmarkFlows(b *testing.B, v6 bool) {
	for _, c := range []struct {
		name      string
		flow      string
		direction int
	}{
		{"tracked", "between containers", original},
		{"service address, request", "between containers, to a service address", original},
		{"service address, reply", "between containers, to a service address", replying},
		{"to outside", "to outside", original},
		{"snat out", "to outside, masqueraded", original},
		{"snat, reply in", "to outside, masqueraded", replying},
		{"host port, in", "from outside, to a host port", original},
		{"host port, reply out", "from outside, to a host port", replying},
	} {
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			b.Run(fmt.Sprintf("%s/%s", c.name, protocolName(protocol, v6)), func(b *testing.B) {
				w := newTrackingWorld(b)
				all := w.translations()
				n := all[slices.IndexFunc(all, func(n translation) bool { return n.name == c.flow })]
				w.benchFlow(b, n.entry(protocol, v6), c.direction)
			})
		}
	}
}

// part is how many packets a run has: few enough to be done before the machine
// finds something else to do.
const part = 5000

// fastest keeps the least time per packet.
type fastest float64

func (f *fastest) add(took time.Duration, n int) {
	if per := fastest(took.Nanoseconds()) / fastest(n); *f == 0 || per < *f {
		*f = per
	}
}

// bench repeats a packet that comes out as it went in, but for its MACs.
func (w *world) bench(b *testing.B, p *packet, want Reason) {
	b.Helper()
	var all, around fastest
	nothing := idle(b)
	before := w.counters(b)
	for done := 0; done < b.N; done += part {
		n := min(part, b.N-done)
		all.add(w.repeat(b, w.program(p.hook()), p, n), n)
		around.add(w.repeat(b, nothing, p, n), n)
	}
	w.wantAll(b, p.hook(), before, want, b.N)
	b.ReportMetric(float64(all-around), "ns/op")
}

// idle is a program that does nothing: what it takes is not ours.
func idle(b *testing.B) *ebpf.Program {
	b.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	return p
}

func (w *world) program(hook Hook) *ebpf.Program {
	return []*ebpf.Program{HookEndpoint: w.objs.FromEndpoint, HookUplink: w.objs.FromUplink, HookDevice: w.objs.ToDevice}[hook]
}

// repeat runs the program on the packet n times and returns how long it took.
func (w *world) repeat(b *testing.B, program *ebpf.Program, p *packet, n int) (took time.Duration) {
	b.Helper()
	w.notePorts(b)
	frame, ctx := p.bytes(), p.context()
	err := w.do(func() error {
		begin := time.Now()
		_, err := program.Run(&ebpf.RunOptions{Data: frame, Context: ctx, Repeat: uint32(n)})
		took = time.Since(begin)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return took
}

// wantAll checks that all packets were counted under one reason: else this
// measures something else.
func (w *world) wantAll(b *testing.B, hook Hook, before map[uint32]ZiplineCounter, want Reason, n int) {
	b.Helper()
	if have := packets(w.counters(b), hook, want) - packets(before, hook, want); have != uint64(n) {
		b.Fatalf("%d of %d packets were counted as %q", have, n, want)
	}
}

// benchFlow repeats a packet that is carried. A test run repeats with the same
// packet, which comes out translated: so a program puts its headers right before
// each, and what that takes is measured beside and taken off. Admission lasts for
// two seconds, so there are many short runs.
func (w *world) benchFlow(b *testing.B, e *entry, direction int) {
	b.Helper()
	w.add(b, e)
	p := e.packet(w, direction, false)
	_, want := e.carried(w, direction, p)
	restoring, nothing := restorer(b, p, w.program(p.hook())), restorer(b, p, idle(b))
	var all, around fastest
	before := w.counters(b)
	for done := 0; done < b.N; done += part {
		n := min(part, b.N-done)
		if time.Since(e.admitted) > time.Second/2 {
			w.admit(b, e, original|replying)
		}
		all.add(w.repeat(b, restoring, p, n), n)
		around.add(w.repeat(b, nothing, p, n), n)
	}
	w.wantAll(b, p.hook(), before, want, b.N)
	b.ReportMetric(float64(all-around), "ns/op")
}

// restorer returns a program that gives the packet the headers of p and calls
// the other one.
func restorer(b *testing.B, p *packet, program *ebpf.Program) *ebpf.Program {
	b.Helper()
	headers := p.bytes()
	headers = headers[:len(headers)-len(p.payload)]
	store, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(headers)), MaxEntries: 1})
	if err != nil {
		b.Fatal(err)
	}
	programs, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		b.Fatal(err)
	}
	r, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm(asm.R2, 0),
		asm.LoadMapValue(asm.R3, store.FD(), 0),
		asm.Mov.Imm(asm.R4, int32(len(headers))),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, programs.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}})
	if err := errors.Join(err, store.Put(uint32(0), headers), programs.Put(uint32(0), program)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _, _ = r.Close(), store.Close(), programs.Close() })
	return r
}
