// SPDX-License-Identifier: Apache-2.0

package coverage

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// MapName is the map that [Instrument] adds: one value with a byte per probe,
// not 0 when the probe ran.
const MapName = "coverage"

// Line is a line of C that has code.
type Line struct {
	File   string
	Number int
	Text   string
}

// Probe is a place in a program that leaves a sign when it runs.
type Probe struct {
	Program string
	// Lines are those of a basic block; of a way out of a conditional jump, the
	// jump's own.
	Lines []Line
	// Jump tells the ways of a program's conditional jumps apart: -n for going
	// on after the n-th, n for taking it, 0 for a basic block.
	Jump int
}

// Instrument puts a probe into each basic block of each program, and on each way
// out of a conditional jump. The n-th byte of the map is the n-th probe's. The
// result is the same each time.
func Instrument(spec *ebpf.CollectionSpec) ([]Probe, error) {
	var all []Probe
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		program := spec.Programs[name]
		f, err := newFlow(program.Instructions)
		if err != nil {
			return nil, fmt.Errorf("read flow of %s: %w", name, err)
		}
		w := &writer{flow: f, program: name, probes: all}
		if err := w.write(); err != nil {
			return nil, fmt.Errorf("instrument %s: %w", name, err)
		}
		program.Instructions, all = w.out, w.probes
	}
	spec.Maps[MapName] = &ebpf.MapSpec{
		Name: MapName, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(max(len(all), 1)), MaxEntries: 1,
	}
	return all, nil
}

// writer makes the new instructions of a program.
type writer struct {
	*flow
	program string
	probes  []Probe
	out     asm.Instructions
	// detours are the ways of jumps that were taken; they go to the end of the
	// function.
	detours asm.Instructions
	jumps   int
}

func (w *writer) write() error {
	var line *btf.Line
	for i, ins := range w.insns {
		if btf.FuncMetadata(&ins) != nil {
			w.endFunction()
		}
		if l, ok := ins.Source().(*btf.Line); ok {
			line = l
		}
		if w.leader[i] {
			probe, err := w.probe(i, Probe{Lines: w.lines(i, line)})
			if err != nil {
				return err
			}
			// A function begins with the probe now, and jumps go to it.
			probe[0] = probe[0].WithSymbol(w.label(i)).WithSource(ins.Source())
			probe[0] = btf.WithFuncMetadata(probe[0], btf.FuncMetadata(&ins))
			w.out = append(w.out, probe...)
			ins = btf.WithFuncMetadata(ins.WithSymbol(""), nil)
		}
		if err := w.instruction(i, ins, line); err != nil {
			return err
		}
	}
	w.endFunction()
	if size := w.out.Size() / asm.InstructionSize; size > math.MaxInt16 {
		return fmt.Errorf("%d instructions are more than a jump can span", size)
	}
	return nil
}

// instruction writes one of the program's own, a jump with its new distance and
// its two probes.
func (w *writer) instruction(i int, ins asm.Instruction, line *btf.Line) error {
	to := w.target[i]
	if to < 0 {
		w.out = append(w.out, ins)
		return nil
	}
	if isGoto(&ins) {
		w.out = append(w.out, jump(ins, w.label(to)))
		return nil
	}
	w.jumps++
	lines := appendLine(nil, line)
	passed, err := w.probe(i+1, Probe{Lines: lines, Jump: -w.jumps})
	if err != nil {
		return err
	}
	taken, err := w.probe(to, Probe{Lines: lines, Jump: w.jumps})
	if err != nil {
		return err
	}
	detour := fmt.Sprintf("%s.taken.%d", w.program, w.jumps)
	taken[0] = taken[0].WithSymbol(detour)
	w.detours = append(append(w.detours, taken...), jump(asm.Ja.Label(""), w.label(to)))
	w.out = append(append(w.out, jump(ins, detour)), passed...)
	return nil
}

func jump(ins asm.Instruction, label string) asm.Instruction {
	ins.Offset = -1 // resolved from the label when the program is loaded
	if ins.OpCode.Class() == asm.Jump32Class && ins.OpCode.JumpOp() == asm.Ja {
		ins.Constant = -1
	}
	return ins.WithReference(label)
}

func (w *writer) endFunction() {
	w.out = append(w.out, w.detours...)
	w.detours = nil
}

// label is the name of the block that begins with the instruction.
func (w *writer) label(i int) string {
	if symbol := w.insns[i].Symbol(); symbol != "" {
		return symbol
	}
	return fmt.Sprintf("%s.block.%d", w.program, i)
}

// probe returns the instructions of a new probe that runs just before an
// instruction of the program.
func (w *writer) probe(before int, p Probe) (asm.Instructions, error) {
	p.Program = w.program
	at := uint32(len(w.probes))
	w.probes = append(w.probes, p)
	sign := func(r asm.Register) asm.Instructions {
		return asm.Instructions{
			asm.LoadMapValue(r, 0, at).WithReference(MapName),
			asm.StoreImm(r, 0, 1, asm.Byte),
		}
	}
	if r, ok := w.free(before); ok {
		return sign(r), nil
	}
	// All ten are in use: put one by. Only r1 to r5 may look used and not be
	// (arguments that a call does not have), and the kernel lets nobody save
	// what was never written.
	slot := w.depth() - 8
	if slot < -stackSize {
		return nil, fmt.Errorf("instruction %d: no free register, and no stack to save one", before)
	}
	saved := append(asm.Instructions{asm.StoreMem(asm.RFP, slot, asm.R9, asm.DWord)}, sign(asm.R9)...)
	return append(saved, asm.LoadMem(asm.R9, asm.RFP, slot, asm.DWord)), nil
}

// lines returns those of the block that begins with the instruction; current is
// the line that it belongs to.
func (w *writer) lines(i int, current *btf.Line) []Line {
	lines := appendLine(nil, current)
	for i++; i < len(w.insns) && !w.leader[i]; i++ {
		if l, ok := w.insns[i].Source().(*btf.Line); ok {
			lines = appendLine(lines, l)
		}
	}
	return lines
}

func appendLine(lines []Line, l *btf.Line) []Line {
	if l == nil || l.LineNumber() == 0 { // 0: the compiler's own
		return lines
	}
	return append(lines, Line{path.Clean(l.FileName()), int(l.LineNumber()), strings.TrimSpace(l.Line())})
}
