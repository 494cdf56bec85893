// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

// Node is a node's open programs and maps.
type Node struct {
	site Site
	dir  string // of the lock files
	name string // of the node
	*set
	record *record
}

// Open opens the node's programs and maps and attaches the programs of a host
// veth to the device with this index (0: to none). See [Site.Open].
func Open(index int) (*Node, error) { return Site{}.Open(index) }

// Find opens the node's programs and maps where they are loaded. See [Site.Find].
func Find(index int) (*Node, error) { return Site{}.Find(index) }

// Open opens the node's programs and maps and attaches the programs of a host
// veth to the device with this index; 0 attaches to none. What is missing is loaded and
// pinned, what was loaded by another version of this binary is replaced on
// every device, with the maps and their entries kept.
//
// Returns a [BPFFSError] where there is no bpffs and none can be mounted, a
// [LoadError] where the kernel does not take the programs, [ErrForeign] where
// somebody else's filter is in the place of ours, and [ErrBusy].
func (s Site) Open(index int) (_ *Node, err error) {
	node, err := s.node()
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(lockPath(node.dir), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	// The lock lasts until the programs are attached, lest a newer version
	// replaces them everywhere but on this device.
	defer func() { _ = lock.Close() }() // nothing was written
	if err = node.openCurrent(); err != nil {
		if err = flock(lock, unix.LOCK_EX); err != nil {
			return nil, fmt.Errorf("lock node: %w", err)
		}
		err = node.assemble()
	}
	if err != nil {
		return nil, err
	}
	if index == 0 {
		return node, nil
	}
	if err := node.attach(index, endpointPlaces(node.TracksFlows())); err != nil {
		return nil, errors.Join(err, node.Close())
	}
	return node, nil
}

// Recorded says whether programs were ever published on this node, as far as
// /run remembers: a cheap answer where searching every device is too much.
func Recorded() bool { return Site{}.recorded() }

func (s Site) recorded() bool {
	name, err := NodeName()
	if err != nil {
		return false
	}
	_, err = readRecord(nodeDir(s.runDir(), name))
	return err == nil
}

// Find opens the node's programs and maps without loading, pinning, replacing
// or attaching anything. The index of a device helps to find them where no pins
// are visible; 0 is no help. Returns [ErrNotLoaded] where there is nothing.
//
// What it returns may be of another version of this binary, with the same
// layout of maps.
func (s Site) Find(index int) (*Node, error) {
	node, err := s.node()
	if err != nil {
		return nil, err
	}
	if err := node.openPinned(); err == nil {
		if index == 0 || !node.strange(index) {
			return node, nil
		}
		node.close()
	}
	if err := node.recover(index); err != nil {
		return nil, err
	}
	return node, nil
}

// Close closes the node's descriptors. Programs and maps stay.
func (n *Node) Close() error {
	n.close()
	return nil
}

// TracksFlows says whether the programs look each flow up in conntrack before
// they carry a packet past the stack.
func (n *Node) TracksFlows() bool { return n.record != nil && n.record.Conntrack }

func (s Site) node() (*Node, error) {
	name, err := NodeName()
	if err != nil {
		return nil, err
	}
	return &Node{site: s, dir: nodeDir(s.runDir(), name), name: name}, nil
}

func (n *Node) pinDir() string { return pinDir(n.site.bpffs(), n.name) }

// openPinned opens the pinned set if the record was written about it: an older
// set may be pinned in a bpffs of this mount namespace while the devices have
// moved on.
func (n *Node) openPinned() error {
	rec, err := readRecord(n.dir)
	if err != nil {
		return err
	}
	s, err := setByPin(n.pinDir())
	if err != nil {
		return err
	}
	if !rec.describesAll(s) {
		s.close()
		return fmt.Errorf("pinned program %d: %w", s.info.id, ErrOtherVersion)
	}
	n.set, n.record = s, rec
	return nil
}

// openCurrent is the quick way: what is pinned, if it is what this binary
// would load.
func (n *Node) openCurrent() error {
	if err := n.openPinned(); err != nil {
		return err
	}
	if !n.record.current(bpf.Digest()) {
		n.close()
		return fmt.Errorf("program %d: %w", n.info.id, ErrOtherVersion)
	}
	return nil
}

// strange says whether a device has a program of ours with other maps.
func (n *Node) strange(index int) bool {
	if ids, err := n.site.attachedIDs(index, fromEndpoint); err == nil && slices.Contains(ids, n.info.id) {
		return false // without opening all that it uses, which DEL waits for
	}
	s, err := n.attachedSet(index)
	if err != nil {
		return false
	}
	defer s.close()
	return !s.sameMaps(n.set)
}
