// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// A test run refuses a context with a VLAN tag or with tc_index, and gives none
// of both back. So it runs a small program, which makes the packet ready and
// calls the one under test. Run a second time on the same packet, it notes
// tc_index.

// staging is what a packet gets before the program under test sees it.
type staging struct {
	tcIndex uint16
	// vlan is a tag that the kernel has taken off, with 1 << 16 for there is one.
	vlan uint32
}

// vlanTag returns the staging of a packet with this tag.
func vlanTag(tag uint16) staging { return staging{vlan: 1<<16 | uint32(tag)} }

// cb has the orders to the stage program in the packet's control block.
func (s staging) cb(hook Hook) [5]uint32 {
	return [5]uint32{uint32(hook), uint32(s.tcIndex), s.vlan}
}

type stage struct {
	program  *ebpf.Program
	programs *ebpf.Map
	notes    *ebpf.Map // the tc_index that was left
	closers  []func() error
}

func (s *stage) close() {
	for _, c := range s.closers {
		_ = c()
	}
}

// setStage loads what surrounds the programs under test.
func (w *world) setStage() error {
	w.stage = &stage{}
	s := w.stage
	programs := []*ebpf.Program{HookEndpoint: w.objs.FromEndpoint, HookUplink: w.objs.FromUplink, HookDevice: w.objs.ToDevice}
	var err error
	if s.programs, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: Hooks}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.programs.Close)
	if s.notes, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.notes.Close)
	for hook, program := range programs {
		if err := s.programs.Put(uint32(hook), program); err != nil {
			return fmt.Errorf("put %s on stage: %w", Hook(hook), err)
		}
	}
	if s.program, err = ebpf.NewProgram(stageProgram(s.programs, s.notes)); err != nil {
		return fmt.Errorf("load stage: %w", err)
	}
	s.closers = append(s.closers, s.program.Close)
	w.mendsIPv6, err = mendsIPv6()
	return err
}

// mendsIPv6 asks for a change of nothing with the flag that Linux 6.16 and some
// older ones know.
func mendsIPv6() (bool, error) {
	const pseudoHeader, ipv6 = 1 << 4, 1 << 7
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, 14+40),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.Mov.Imm(asm.R5, pseudoHeader|ipv6),
		asm.FnL4CsumReplace.Call(),
		asm.Return(),
	}})
	if err != nil {
		return false, err
	}
	defer func() { _ = p.Close() }()
	ret, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 100)})
	return ret == 0, err
}

func stageProgram(programs, notes *ebpf.Map) *ebpf.ProgramSpec {
	const (
		tcIndex, cb   = 44, 48  // offsets in struct __sk_buff
		failed, again = 99, 100 // no verdict of ours, no hook of ours
	)
	return &ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, cb, asm.Word),
		asm.JEq.Imm(asm.R7, again, "again"),
		asm.LoadMem(asm.R1, asm.R6, cb+4, asm.Word),
		asm.StoreMem(asm.R6, tcIndex, asm.R1, asm.Word),
		asm.LoadMem(asm.R8, asm.R6, cb+8, asm.Word),
		asm.Mov.Imm(asm.R1, again),
		asm.StoreMem(asm.R6, cb, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R6, cb+4, asm.R1, asm.Word),
		asm.StoreMem(asm.R6, cb+8, asm.R1, asm.Word),
		asm.JEq.Imm(asm.R8, 0, "untagged"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, 0x81), // 802.1Q in network order
		asm.Mov.Reg(asm.R3, asm.R8),
		asm.And.Imm(asm.R3, 0xffff),
		asm.FnSkbVlanPush.Call(),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("untagged"),
		asm.LoadMapPtr(asm.R2, programs.FD()),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, failed),
		asm.Return(),
		asm.LoadMem(asm.R1, asm.R6, tcIndex, asm.Word).WithSymbol("again"),
		asm.LoadMapValue(asm.R2, notes.FD(), 0),
		asm.StoreMem(asm.R2, 0, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}}
}

// said returns what the program leaves in tc_index for to_device.
func (w *world) said(tb testing.TB, hook Hook, frame []byte, ctx skBuff, ready staging) uint16 {
	tb.Helper()
	ctx.CB = ready.cb(hook)
	err := w.do(func() error {
		_, err := w.stage.program.Run(&ebpf.RunOptions{Data: frame, Context: ctx, Repeat: 2})
		return err
	})
	var note uint32
	if err := errors.Join(err, w.stage.notes.Lookup(uint32(0), &note)); err != nil {
		tb.Fatalf("run %s twice: %v", hook, err)
	}
	return uint16(note)
}
