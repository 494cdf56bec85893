// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// programs are those of a device in a node, which can be taken off and put back.
type programs struct {
	node     *testrig.Node
	device   int
	attached []hooked
	on       bool
}

// hooked is a program and the hook that it is attached to.
type hooked struct {
	*ebpf.Program
	hook ebpf.AttachType
}

// findPrograms returns the programs that TCX runs for a device, in their order.
// They last as long as tb, attached or not.
func findPrograms(tb testing.TB, node *testrig.Node, device string) (*programs, error) {
	p := &programs{node: node, on: true}
	err := node.Do(func() error {
		found, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		p.device = found.Index
		for _, hook := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			result, err := link.QueryPrograms(link.QueryOptions{Target: p.device, Attach: hook})
			if err != nil {
				return err
			}
			for _, info := range result.Programs {
				program, err := ebpf.NewProgramFromID(info.ID)
				if err != nil {
					return err
				}
				tb.Cleanup(func() { _ = program.Close() })
				p.attached = append(p.attached, hooked{program, hook})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find programs of %s: %w", device, err)
	}
	return p, nil
}

// set attaches or detaches all programs.
func (p *programs) set(on bool) error {
	if on == p.on {
		return nil
	}
	err := p.node.Do(func() error {
		for _, h := range p.attached {
			if err := h.set(p.device, on); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("attach or detach program: %w", err)
	}
	p.on = on
	return nil
}

func (h hooked) set(device int, on bool) error {
	if on {
		// Behind those that came before, so that the order stays.
		return link.RawAttachProgram(link.RawAttachProgramOptions{Target: device, Program: h.Program, Attach: h.hook, Anchor: link.Tail()})
	}
	return link.RawDetachProgram(link.RawDetachProgramOptions{Target: device, Program: h.Program, Attach: h.hook})
}
