// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/zipline-cni/zipline/bpf"
)

// found is where the programs of a node turned up.
type found struct {
	// attached has the sets on devices, one for each program, with the devices.
	attached []attachedSet
	recorded *set
	pinned   *set
}

// attachedSet is a set and the devices that have its program.
type attachedSet struct {
	*set
	devices []int
}

func (f *found) close() {
	for _, a := range f.attached {
		a.close()
	}
	f.recorded.close()
	f.pinned.close()
}

// choose returns the node's set, or nil. The devices decide: what packets go
// through is true, whatever else is written down. Should they disagree, the
// maps with most devices win.
func (f *found) choose() *set {
	if len(f.attached) > 0 {
		weight := func(a attachedSet) (devices int) {
			for _, other := range f.attached {
				if other.sameMaps(a.set) {
					devices += len(other.devices)
				}
			}
			return devices
		}
		return slices.MaxFunc(f.attached, func(a, b attachedSet) int { return cmp.Compare(weight(a), weight(b)) }).set
	}
	if f.recorded != nil {
		return f.recorded
	}
	return f.pinned
}

// current returns the set whose program is proven to be what this binary would
// load, with the maps of s: by the record, which names a program that the
// kernel still has.
func (f *found) current(rec *record, s *set) *set {
	if rec == nil || f.recorded == nil || !rec.current(bpf.Digest()) || !f.recorded.sameMaps(s) {
		return nil
	}
	return f.recorded
}

// find looks for the node's programs everywhere: on all devices, by the record,
// and by the pins.
func (n *Node) find() (*found, *record, error) {
	f := new(found)
	var err error
	if f.attached, err = n.scan(); err != nil {
		return nil, nil, err
	}
	rec, err := readRecord(n.dir)
	if err != nil {
		rec = nil // missing, or not ours to read: then it proves nothing
	} else {
		f.recorded = setByRecord(rec)
	}
	if s, err := setByPin(n.pinDir()); err == nil {
		f.pinned = s
	}
	return f, rec, nil
}

// setByRecord returns the recorded program if the kernel has it, else nil.
func setByRecord(rec *record) *set {
	s, err := setByID(rec.Programs[bpf.ZiplineProgFromEndpoint].ID)
	if err != nil {
		return nil
	}
	err = s.addSiblings(func(name string) (int, error) { return progByID(rec.Programs[name].ID) })
	if err != nil || !rec.describesAll(s) {
		s.close()
		return nil
	}
	return s
}

// assemble is the long way of Open, under the exclusive lock: find the node's
// set or load one, bring the program up to date on every device, pin, record.
func (n *Node) assemble() (err error) {
	if err := n.openCurrent(); err == nil {
		return nil // somebody else was quicker
	}
	if err := n.site.mountBPFFS(); err != nil {
		return err
	}
	f, rec, err := n.find()
	if err != nil {
		return err
	}
	defer f.close()
	chosen := f.choose()
	var s *set
	switch {
	case chosen == nil:
		s, rec, err = load(nil)
	case f.current(rec, chosen) != nil:
		s, f.recorded = f.recorded, nil
	default:
		s, rec, err = load(chosen)
	}
	if err != nil {
		return err
	}
	if err := n.publish(s, rec, f.attached); err != nil {
		s.close()
		return err
	}
	n.set, n.record = s, rec
	return nil
}

// publish makes a set the node's: on the devices, in the bpffs, in the record.
// The record comes last: without it the next Open does all of this again.
func (n *Node) publish(s *set, rec *record, attached []attachedSet) error {
	for _, a := range attached {
		if a.info.id == s.info.id {
			continue
		}
		if !a.sameMaps(s) {
			if err := n.change(func() error { return mergeMaps(s, a.set) }); err != nil {
				return err
			}
		}
		if err := n.replace(s, a.devices, endpointPlaces(rec.Conntrack)); err != nil {
			return err
		}
	}
	n.replaceOnUplinks(s)
	if err := n.pin(s); err != nil {
		return err
	}
	return rec.write(n.dir)
}

// replaceOnUplinks needs no scan: an uplink without an entry is not used. Where
// it fails the older version goes on with the same maps, and the next
// AttachUplink says why; no container has to wait for that.
func (n *Node) replaceOnUplinks(s *set) {
	uplinks, err := entries[uint32, bpf.ZiplineUplink](s.maps[bpf.ZiplineMapUplinks])
	if err != nil {
		return
	}
	for index := range uplinks {
		_ = n.replace(s, []int{int(index)}, uplinkPlaces)
	}
}

func (n *Node) replace(s *set, indexes []int, places []place) error {
	for _, index := range indexes {
		for _, p := range places {
			if err := n.site.attach(s, index, p); err != nil && !isGone(err) {
				return fmt.Errorf("replace program on device %d: %w", index, err)
			}
		}
	}
	return nil
}

// recover is the long way of Find. It changes nothing, so it needs no lock.
func (n *Node) recover(index int) error {
	rec, err := readRecord(n.dir)
	if err != nil {
		rec = nil // as in find
	}
	s, err := n.recoverSet(rec, index)
	if err != nil {
		return err
	}
	n.set = s
	if rec != nil && rec.describes(s.info) {
		n.record = rec
		if len(s.siblings) > 0 {
			return nil
		}
		// A sibling that is gone stays unknown: Find has no use for it.
		// Without pins that is from_uplink on a node where no uplink has it.
		for _, name := range siblings {
			if fd, err := progByID(rec.Programs[name].ID); err == nil {
				_ = s.addSibling(fd, name)
			}
		}
	}
	return nil
}

func (n *Node) recoverSet(rec *record, index int) (*set, error) {
	if index != 0 {
		s, err := n.attachedSet(index)
		if err == nil {
			return s, nil
		}
		// Nothing of a device without a program is published, so a node without
		// a record need not be searched: that would cost a look at every device
		// for each DEL on a node whose endpoints use no program.
		if rec == nil && errors.Is(err, errNoProgram) {
			return nil, ErrNotLoaded
		}
	}
	if rec != nil {
		if s := setByRecord(rec); s != nil {
			return s, nil
		}
	}
	f, _, err := n.find()
	if err != nil {
		return nil, err
	}
	defer f.close()
	if chosen := f.choose(); chosen != nil {
		return setByID(chosen.info.id)
	}
	return nil, ErrNotLoaded
}
