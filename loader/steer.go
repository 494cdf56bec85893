// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/nlink"
)

// InUseError says that programs are not unloaded because of endpoints.
type InUseError struct {
	// Endpoints is how many host veths there are.
	Endpoints int
}

// Error says how many, and what becomes of them.
func (e *InUseError) Error() string {
	return fmt.Sprintf("%d endpoints are on this node: without the programs the stack carries all of their packets", e.Endpoints)
}

// Is makes it an [ErrInUse].
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// ErrInUse says that endpoints use what was to be unloaded.
var ErrInUse = errors.New("in use by endpoints")

// ErrOtherLayout says that programs of a version with other maps are attached,
// which cannot be replaced one by one: they know nothing of this version's maps.
var ErrOtherLayout = errors.New("programs of another map layout are attached: unload all, then repair")

// checkLayout returns an [ErrOtherLayout] if one of the programs is of another
// layout: device 0 asks for all devices.
func checkLayout(held []Placement, index int) error {
	for _, h := range held {
		if h.Hook == HookPin || index != 0 && h.Index != index {
			continue
		}
		m, err := memberByID(h.ID, h.Program)
		if errors.Is(err, errNotOurs) {
			return fmt.Errorf("%s %d on %s: %w", h.Program, h.ID, h.Device, ErrOtherLayout)
		}
		if err == nil {
			_ = m.program.Close() // only read from
		}
	}
	return nil
}

// steer runs f with the node's lock held exclusively, and returns what is held
// otherwise afterwards, also when f failed.
func (s Site) steer(f func(n *Node, held []Placement) error) (_ []Step, err error) {
	node, err := s.node()
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(lockPath(node.dir), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	before, err := s.placements()
	if err != nil {
		return nil, err
	}
	err = f(node, before)
	node.close()
	after, listErr := s.placements()
	if listErr != nil {
		return nil, errors.Join(err, listErr)
	}
	return compare(before, after), err
}

// Load loads and pins the programs and maps. What is loaded by another version
// of this binary is replaced, as [Site.Open] does.
func (s Site) Load() ([]Step, error) {
	return s.steer(func(n *Node, _ []Placement) error { return n.ensure() })
}

// Current returns nil if the programs of this binary are pinned with all of their
// maps and recorded, else what is wrong: what [Site.Load] mends.
func (s Site) Current() error {
	node, err := s.node()
	if err != nil {
		return err
	}
	if err := node.openCurrent(); err != nil {
		return err
	}
	return node.Close()
}

// AttachDevice attaches the programs of a host veth, and loads what is missing.
func (s Site) AttachDevice(index int) ([]Step, error) {
	return s.steer(func(n *Node, held []Placement) error {
		if err := checkLayout(held, index); err != nil {
			return err
		}
		if err := n.ensure(); err != nil {
			return err
		}
		return n.attach(index, endpointPlaces(n.TracksFlows()))
	})
}

// AttachUplinkDevice attaches the programs of an uplink, and loads what is
// missing. See [Node.AttachUplink]. Returns [ErrNotSupported] where flows are
// not looked up in conntrack: there an uplink has no programs.
func (s Site) AttachUplinkDevice(index int, mtu uint32) ([]Step, error) {
	return s.steer(func(n *Node, held []Placement) error {
		if err := checkLayout(held, index); err != nil {
			return err
		}
		if err := n.ensure(); err != nil {
			return err
		}
		if !n.TracksFlows() {
			return fmt.Errorf("look up conntrack from eBPF: %w", ErrNotSupported)
		}
		return n.AttachUplink(index, mtu)
	})
}

// ensure opens what is current or makes it so.
func (n *Node) ensure() error {
	if err := n.openCurrent(); err == nil {
		return nil
	}
	return n.assemble()
}

// Upgrade replaces every program of ours, on every device, by that of this
// binary. It loads nothing where nothing is loaded: then it returns
// [ErrNotLoaded]. No packet misses a program meanwhile, since each is replaced in
// one step, and the maps stay. Returns [ErrOtherLayout].
func (s Site) Upgrade() ([]Step, error) {
	return s.steer(func(n *Node, held []Placement) error {
		if err := checkLayout(held, 0); err != nil {
			return err
		}
		if err := n.recover(0); err != nil {
			return err
		}
		n.close()
		n.set = nil
		if err := n.ensure(); err != nil {
			return err
		}
		return n.replaceAll()
	})
}

// replaceAll brings the places up to date that assemble does not look at: it
// trusts a record that is current.
func (n *Node) replaceAll() error {
	placements, err := n.site.placements()
	if err != nil {
		return err
	}
	var errs []error
	for _, held := range placements {
		if own := n.named(held.Program); held.Hook == HookPin || own == nil || own.info.id == held.ID {
			continue
		}
		for _, p := range allPlaces {
			if p.program == held.Program {
				errs = append(errs, n.replace(n.set, []int{held.Index}, []place{p}))
			}
		}
	}
	return errors.Join(errs...)
}

// DetachDevice takes all programs of ours off a device, whatever their version.
// The stack carries its packets from then on. An uplink is withdrawn first, so
// that nothing is sent out by it that could not be answered.
func (s Site) DetachDevice(index int) ([]Step, error) {
	return s.steer(func(n *Node, _ []Placement) error {
		switch err := n.recover(index); {
		case err == nil:
			err := n.change(func() error { return remove(n.maps[bpf.ZiplineMapUplinks], uint32(index)) })
			if err != nil {
				return err
			}
		case !errors.Is(err, ErrNotLoaded):
			return err
		}
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("read device %d: %w", index, err)
		}
		return s.takeOff(link.Attrs())
	})
}

// Unload takes all programs of ours off all devices of the calling thread's
// namespace and removes the pins and the record of its node. Without force it
// refuses while there are host veths, with an [InUseError]. Pins in a bpffs of
// another mount namespace stay; [Site.Open] does not believe them.
func (s Site) Unload(force bool) ([]Step, error) {
	return s.steer(func(n *Node, _ []Placement) error {
		endpoints, err := devices()
		if err != nil {
			return err
		}
		if len(endpoints) > 0 && !force {
			return &InUseError{len(endpoints)}
		}
		// The record first: whoever is killed after it has made the next Open
		// look at the devices, which is right at every moment from here on.
		for _, path := range []string{recordPath(n.dir), pinRoot(s.bpffs(), n.name)} {
			if err := removeTree(path); err != nil {
				return err
			}
		}
		links, err := nlink.Links()
		if err != nil {
			return err
		}
		var errs []error
		for _, link := range links {
			if err := s.takeOff(link.Attrs()); err != nil && !isGone(err) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
}

// takeOff takes the programs off a device, those that observe last: what they
// would have seen is asked for by the others.
func (s Site) takeOff(attrs *netlink.LinkAttrs) error {
	held, err := s.placementsOn(attrs)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range allPlaces {
		for _, h := range held {
			if h.Program != p.program {
				continue
			}
			take := detachClsact
			if h.Hook == HookTCX {
				take = func(index int, p place) error { return detachID(index, p, h.ID) }
			}
			if err := take(attrs.Index, p); err != nil {
				errs = append(errs, fmt.Errorf("device %s: %w", attrs.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
