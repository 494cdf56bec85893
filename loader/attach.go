// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
)

// Attach attaches the node's program to the ingress of a device, for its
// lifetime: the device owns the program, so nothing has to be detached and no
// pin is left behind. Where it is attached nothing happens, where another
// version is it is replaced in one step. Returns what [Site.Open] returns.
func (n *Node) Attach(index int) error {
	fresh, err := n.site.Open(index)
	if err != nil {
		return err
	}
	n.close()
	*n = *fresh
	return nil
}

// Attached returns nil if the node's program is attached to the device, else
// an error that says what is: [ErrDetached], [ErrOtherVersion] or [ErrOtherMaps].
func (n *Node) Attached(index int) error {
	s, err := n.attachedSet(index)
	switch {
	case errors.Is(err, errNoProgram):
		return ErrDetached
	case err != nil:
		return fmt.Errorf("query programs of device %d: %w", index, err)
	}
	defer s.close()
	switch {
	case s.info.id == n.info.id:
		return nil
	case s.sameMaps(n.set):
		return fmt.Errorf("%w: %d, not %d", ErrOtherVersion, s.info.id, n.info.id)
	default:
		return fmt.Errorf("%w: program %d, not %d", ErrOtherMaps, s.info.id, n.info.id)
	}
}

func (n *Node) attach(index int) error {
	if err := n.site.attach(n.set, index); err != nil {
		return fmt.Errorf("attach to device %d: %w", index, err)
	}
	return nil
}

// attach puts a program on a device: by TCX, where the kernel has it, else by
// clsact. There is only ever one of ours.
func (s Site) attach(set *set, index int) error {
	if !s.ForceClsact {
		err := attachTCX(set, index)
		if !errors.Is(err, errNoTCX) {
			return err
		}
	}
	return attachClsact(set, index)
}

// attachedIDs returns the ids of the programs on a device that may be ours.
func (s Site) attachedIDs(index int) ([]uint32, error) {
	if !s.ForceClsact {
		ids, err := queryTCX(index)
		if err == nil && len(ids) > 0 || err != nil && !errors.Is(err, errNoTCX) {
			return ids, err
		}
	}
	return queryClsact(index)
}
