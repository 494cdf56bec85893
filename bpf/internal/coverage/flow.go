// SPDX-License-Identifier: Apache-2.0

package coverage

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// flow is the control flow of a program and its functions.
type flow struct {
	insns asm.Instructions
	// target has the index of the instruction that a jump goes to, -1 for others.
	target []int
	// leader says which instructions begin a basic block.
	leader []bool
	// live has the registers that may still be read before they are written,
	// when the instruction is reached.
	live []registers
}

func newFlow(insns asm.Instructions) (*flow, error) {
	f := &flow{
		insns:  insns,
		target: make([]int, len(insns)),
		leader: make([]bool, len(insns)+1),
		live:   make([]registers, len(insns)+1),
	}
	index := map[asm.RawInstructionOffset]int{}
	for iter := insns.Iterate(); iter.Next(); {
		index[iter.Offset] = iter.Index
	}
	f.leader[0] = true
	for iter := insns.Iterate(); iter.Next(); {
		i, ins := iter.Index, iter.Ins
		f.target[i] = -1
		if btf.FuncMetadata(ins) != nil {
			f.leader[i] = true
		}
		if !isJump(ins) {
			f.leader[i+1] = f.leader[i+1] || isExit(ins)
			continue
		}
		distance := int64(ins.Offset)
		if ins.OpCode.Class() == asm.Jump32Class && ins.OpCode.JumpOp() == asm.Ja {
			distance = ins.Constant
		}
		to, ok := index[asm.RawInstructionOffset(int64(iter.Offset)+1+distance)]
		if !ok || ins.Reference() != "" {
			return nil, fmt.Errorf("instruction %d: jump to nowhere: %v", i, ins)
		}
		f.target[i] = to
		f.leader[to], f.leader[i+1] = true, true
	}
	f.findLive()
	return f, nil
}

// findLive goes backwards until nothing changes.
func (f *flow) findLive() {
	for changed := true; changed; {
		changed = false
		for i := len(f.insns) - 1; i >= 0; i-- {
			ins := &f.insns[i]
			var after registers
			if !isExit(ins) && !isGoto(ins) {
				after = f.live[i+1]
			}
			if to := f.target[i]; to >= 0 {
				after |= f.live[to]
			}
			reads, writes := access(ins)
			if live := after&^writes | reads; live != f.live[i] {
				f.live[i], changed = live, true
			}
		}
	}
}

// free returns a register that nobody reads any more at this instruction.
func (f *flow) free(at int) (asm.Register, bool) {
	for r := asm.R0; r <= asm.R9; r++ {
		if f.live[at]&set(r) == 0 {
			return r, true
		}
	}
	return 0, false
}

// depth returns the offset of the lowest word of the stack that the program may
// use, in bytes below the frame pointer. It is not below what is really used.
func (f *flow) depth() int16 {
	var lowest int64
	for i := range f.insns {
		ins := &f.insns[i]
		op := ins.OpCode
		switch class := op.Class(); {
		case class == asm.LdXClass && ins.Src == asm.RFP, (class == asm.StClass || class == asm.StXClass) && ins.Dst == asm.RFP:
			lowest = min(lowest, int64(ins.Offset))
		case class.IsALU() && op.ALUOp() == asm.Add && op.Source() == asm.ImmSource && ins.Constant >= -stackSize:
			lowest = min(lowest, ins.Constant)
		}
	}
	return int16(lowest) &^ 7
}

// stackSize is what the kernel gives a program.
const stackSize = 512

// registers is a set of them.
type registers uint16

func set(list ...asm.Register) (s registers) {
	for _, r := range list {
		s |= 1 << r
	}
	return s
}

// access returns what an instruction reads and what it writes. A call counts as
// reading all five arguments.
func access(ins *asm.Instruction) (reads, writes registers) {
	op, dst, src := ins.OpCode, set(ins.Dst), set(ins.Src)
	fromRegister := op.Source() == asm.RegSource
	switch class := op.Class(); {
	case class.IsALU():
		if fromRegister && op.ALUOp() != asm.Swap {
			reads = src
		}
		if op.ALUOp() != asm.Mov {
			reads |= dst
		}
		return reads, dst
	case class == asm.LdClass:
		return 0, dst
	case class == asm.LdXClass:
		return src, dst
	case class == asm.StClass:
		return dst, 0
	case class == asm.StXClass:
		// An atomic operation may write src or r0: they do not become free by it.
		if op.Mode() == asm.AtomicMode && op.AtomicOp() == asm.CmpXchg {
			src |= set(asm.R0)
		}
		return dst | src, 0
	}
	switch op.JumpOp() {
	case asm.Call:
		arguments := set(asm.R1, asm.R2, asm.R3, asm.R4, asm.R5)
		return arguments, arguments | set(asm.R0)
	case asm.Exit:
		return set(asm.R0), 0
	case asm.Ja:
		return 0, 0
	}
	if fromRegister {
		return dst | src, 0
	}
	return dst, 0
}

func isExit(ins *asm.Instruction) bool {
	return ins.OpCode.Class() == asm.JumpClass && ins.OpCode.JumpOp() == asm.Exit
}

func isJump(ins *asm.Instruction) bool {
	op := ins.OpCode
	return op.Class().IsJump() && op.JumpOp() != asm.Call && op.JumpOp() != asm.Exit
}

func isGoto(ins *asm.Instruction) bool {
	return isJump(ins) && ins.OpCode.JumpOp() == asm.Ja
}
