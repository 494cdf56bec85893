// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// idle returns a program that leaves every packet alone.
func idle(t *testing.T) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return program
}

func TestProgramsComeBackInTheirOrder(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	ids := func() []ebpf.ProgramID {
		p, err := findPrograms(t, w.Node, testrig.Uplink)
		if err != nil {
			t.Fatal(err)
		}
		var ids []ebpf.ProgramID
		for _, h := range p.attached {
			info, err := h.Info()
			if err != nil {
				t.Fatal(err)
			}
			id, _ := info.ID()
			ids = append(ids, id)
		}
		return ids
	}
	if got := ids(); len(got) > 0 {
		t.Fatalf("a new uplink has programs %v", got)
	}
	p, err := findPrograms(t, w.Node, testrig.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	for _, hook := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		program := idle(t)
		err := w.Node.Do(func() error {
			return link.RawAttachProgram(link.RawAttachProgramOptions{
				Target: p.device, Program: program, Attach: hook, Anchor: link.Tail(),
			})
		})
		if err != nil {
			t.Skipf("kernel without TCX (Linux 6.6): %v", err)
		}
	}
	want := ids()
	if p, err = findPrograms(t, w.Node, testrig.Uplink); err != nil || len(p.attached) != 3 {
		t.Fatalf("found %d programs, %v; want 3", len(p.attached), err)
	}
	for range 2 {
		for _, on := range []bool{true, false, false, true} {
			if err := p.set(on); err != nil {
				t.Fatal(err)
			}
			if got := ids(); on && !slices.Equal(got, want) || !on && len(got) > 0 {
				t.Fatalf("programs %v when on is %v; were %v", got, on, want)
			}
		}
	}
}

func TestProgramsOfAMissingDevice(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	if _, err := findPrograms(t, w.Node, "none0"); err == nil {
		t.Error("found the programs of a device that is not there")
	}
}
