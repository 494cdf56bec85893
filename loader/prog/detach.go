// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNotAttached says that no program is named so.
var ErrNotAttached = errors.New("not attached")

// Detach takes a program, named by its id or name, off a device; direction may
// be "" for both sides. Where several have the name it takes off none. The pin of
// a link that can be seen goes with it. Returns what was taken off.
func Detach(device string, direction Direction, word string) (*Attached, error) {
	list, err := List(device)
	if err != nil {
		return nil, err
	}
	var found []Attached
	for _, a := range list {
		if a.is(word) && (direction == "" || direction == a.Direction) {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("program %s on %s: %w", word, device, ErrNotAttached)
	case 1:
		return &found[0], found[0].detach()
	default:
		return nil, fmt.Errorf("program %s is %d times on %s: say which by its id and side (%s %d and %s %d are two)", word, len(found), device,
			found[0].Direction, found[0].ID, found[1].Direction, found[1].ID)
	}
}

func (a *Attached) detach() error {
	detach := a.detachProgram
	switch {
	case a.Hook == HookClsact:
		detach = a.detachFilter
	case a.LinkID != 0:
		detach = a.detachLink
	}
	if err := detach(); err != nil {
		return fmt.Errorf("detach %s (%d) from %s of %s: %w", a.Name, a.ID, a.Direction, a.Device, err)
	}
	return nil
}

func (a *Attached) detachProgram() (err error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(a.ID))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return link.RawDetachProgram(link.RawDetachProgramOptions{Target: a.Index, Program: p, Attach: a.Direction.tcx()})
}

// detachLink detaches whoever holds the link. The pin goes last: while it is
// there the link can be found.
func (a *Attached) detachLink() (err error) {
	l, err := link.NewFromID(link.ID(a.LinkID))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.Detach(); err != nil {
		return err
	}
	if a.Pin == "" {
		return nil
	}
	if err := os.Remove(a.Pin); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove pin: %w", err)
	}
	return nil
}

func (a *Attached) detachFilter() error {
	err := netlink.FilterDel(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: a.Index, Parent: a.Direction.clsact(), Handle: a.Handle, Priority: a.Priority, Protocol: unix.ETH_P_ALL,
	}})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
