// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/bpf"
)

// place is a side of a device that a program is attached to.
type place struct {
	program string // its name
	tcx     ebpf.AttachType
	clsact  uint32 // the parent of the filters
}

// The places of the programs.
var (
	fromEndpoint = place{bpf.ZiplineProgFromEndpoint, ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS}
	fromUplink   = place{bpf.ZiplineProgFromUplink, ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS}
	toDevice     = place{bpf.ZiplineProgToDevice, ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS}
)

// endpointPlaces returns where programs go on a host veth. Only what looks
// flows up in conntrack has anything to observe.
func endpointPlaces(conntrack bool) []place {
	if conntrack {
		return []place{fromEndpoint, toDevice}
	}
	return []place{fromEndpoint}
}

// Attach attaches the node's programs to a host veth, for its lifetime: the
// device owns them, so nothing has to be detached and no pin is left behind.
// Where they are attached nothing happens, where another version is it is
// replaced in one step. Returns what [Site.Open] returns.
func (n *Node) Attach(index int) error {
	fresh, err := n.site.Open(index)
	if err != nil {
		return err
	}
	n.close()
	*n = *fresh
	return nil
}

// Attached returns nil if the node's programs are attached to the host veth,
// else an error that says what is: [ErrDetached], [ErrOtherVersion] or [ErrOtherMaps].
func (n *Node) Attached(index int) error {
	return n.attachedAt(index, endpointPlaces(n.TracksFlows()))
}

func (n *Node) attachedAt(index int, places []place) error {
	for _, p := range places {
		if err := n.attachedTo(index, p); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) attachedTo(index int, p place) error {
	own := n.named(p.program)
	ids, err := n.site.attachedIDs(index, p)
	if err != nil {
		return fmt.Errorf("query programs of device %d: %w", index, err)
	}
	if own != nil && slices.Contains(ids, own.info.id) {
		return nil
	}
	for _, id := range ids {
		other, err := memberByID(id, p.program)
		if err != nil {
			continue // somebody else's, or gone
		}
		defer func() { _ = other.program.Close() }() // only read from
		switch {
		case other.uses(n.mapIDs[bpf.ZiplineMapCounters]):
			return fmt.Errorf("%w: %s %d", ErrOtherVersion, p.program, id)
		default:
			return fmt.Errorf("%w: %s %d", ErrOtherMaps, p.program, id)
		}
	}
	return fmt.Errorf("%w: %s", ErrDetached, p.program)
}

// attach attaches the programs of these places, those that observe last.
func (n *Node) attach(index int, places []place) error {
	for _, p := range places {
		if err := n.site.attach(n.set, index, p); err != nil {
			return fmt.Errorf("attach to device %d: %w", index, err)
		}
	}
	return nil
}

// attach puts a program on a device: by TCX, where the kernel has it, else by
// clsact. There is only ever one of ours at a place.
func (s Site) attach(set *set, index int, p place) error {
	m := set.named(p.program)
	if m == nil {
		return fmt.Errorf("attach %s: %w", p.program, errNoProgram)
	}
	if !s.ForceClsact {
		if err := attachTCX(m, index, p); !errors.Is(err, errNoTCX) {
			return err
		}
	}
	return attachClsact(m, index, p)
}

// detach takes our program off a place, whatever its version. Where there is
// none nothing happens.
func (s Site) detach(index int, p place) error {
	if !s.ForceClsact {
		if err := detachTCX(index, p); err != nil && !errors.Is(err, errNoTCX) {
			return err
		}
	}
	return detachClsact(index, p)
}

// attachedIDs returns the ids of the programs at a place that may be ours.
func (s Site) attachedIDs(index int, p place) ([]uint32, error) {
	if !s.ForceClsact {
		ids, err := queryTCX(index, p.tcx)
		if err == nil && len(ids) > 0 || err != nil && !errors.Is(err, errNoTCX) {
			return ids, err
		}
	}
	return queryClsact(index, p)
}
