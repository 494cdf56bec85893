// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// Compile returns a program that passes snaplen bytes of the packets that an
// expression means; the empty expression means all.
func Compile(expression string, snaplen uint32) ([]bpf.RawInstruction, error) {
	node, err := parse(expression)
	if err != nil {
		return nil, fmt.Errorf("filter %q: %w", expression, err)
	}
	c := &compiler{}
	pass, reject := c.label(), c.label()
	if node != nil {
		c.generate(node, pass, reject)
	}
	c.place(pass)
	c.emit(bpf.RetConstant{Val: snaplen})
	c.place(reject)
	c.emit(bpf.RetConstant{})
	program, err := bpf.Assemble(c.link())
	if err == nil && len(program) > maxInstructions {
		err = fmt.Errorf("%d instructions, more than the kernel takes", len(program))
	}
	if err != nil {
		return nil, fmt.Errorf("filter %q: %w", expression, err)
	}
	return program, nil
}

// maxInstructions is the kernel's BPF_MAXINSNS.
const maxInstructions = 4096

// node is a condition.
type node interface{}

type (
	and struct{ a, b node }
	or  struct{ a, b node }
	not struct{ a node }
	// test loads a value, of which mask (0: all) is compared.
	test struct {
		load  []bpf.Instruction
		mask  uint32
		cond  bpf.JumpTest
		value uint32
	}
)

type label int

// step is an instruction, or a jump to a label.
type step struct {
	instruction bpf.Instruction
	to          label
	jump        bool
}

type compiler struct {
	steps  []step
	places []int // of the labels
}

func (c *compiler) label() label {
	c.places = append(c.places, -1)
	return label(len(c.places) - 1)
}

func (c *compiler) place(l label)          { c.places[l] = len(c.steps) }
func (c *compiler) emit(i bpf.Instruction) { c.steps = append(c.steps, step{instruction: i}) }
func (c *compiler) jump(to label)          { c.steps = append(c.steps, step{to: to, jump: true}) }

// generate makes the code that goes on at yes where the condition holds, else at no.
func (c *compiler) generate(n node, yes, no label) {
	switch n := n.(type) {
	case and:
		next := c.label()
		c.generate(n.a, next, no)
		c.place(next)
		c.generate(n.b, yes, no)
	case or:
		next := c.label()
		c.generate(n.a, yes, next)
		c.place(next)
		c.generate(n.b, yes, no)
	case not:
		c.generate(n.a, no, yes)
	case test:
		for _, i := range n.load {
			c.emit(i)
		}
		if n.mask != 0 {
			c.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: n.mask})
		}
		// A conditional jump reaches 255 instructions, an unconditional one all.
		c.emit(bpf.JumpIf{Cond: n.cond, Val: n.value, SkipFalse: 1})
		c.jump(yes)
		c.jump(no)
	}
}

// link puts distances for labels.
func (c *compiler) link() []bpf.Instruction {
	program := make([]bpf.Instruction, len(c.steps))
	for i, s := range c.steps {
		program[i] = s.instruction
		if s.jump {
			program[i] = bpf.Jump{Skip: uint32(c.places[s.to] - i - 1)}
		}
	}
	return program
}
