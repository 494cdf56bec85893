// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// defaultPriority is that of the first filter, with room on both sides.
const defaultPriority = 1000

// attachClsact adds a direct-action filter. The qdisc is made where it is
// missing and never removed, since others may come to use it.
func attachClsact(program *ebpf.Program, index int, o Options, anchor *Attached) error {
	filters, err := filtersOf(index, o.Direction)
	if err != nil {
		return err
	}
	priority, err := o.priority(filters, anchor)
	if err != nil {
		return err
	}
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact qdisc: %w", err)
	}
	info, err := program.Info()
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	err = netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: o.Direction.clsact(), Handle: 1, Priority: priority, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: info.Name, DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("add filter at priority %d: %w", priority, err)
	}
	return nil
}

// priority returns one between the neighbours of the place: filters run in the
// order of their priorities.
func (o Options) priority(filters []*netlink.BpfFilter, anchor *Attached) (uint16, error) {
	low, high := 0, math.MaxUint16+1 // exclusive
	for _, f := range filters {
		p := int(f.Priority)
		switch {
		case o.Where == First || o.Where == Before && p >= int(anchor.Priority):
			high = min(high, p)
		case o.Where == After && p > int(anchor.Priority):
			high = min(high, p)
		default:
			low = max(low, p)
		}
	}
	switch {
	case low == 0 && high > math.MaxUint16:
		return defaultPriority, nil
	case high > math.MaxUint16 && low < math.MaxUint16:
		return uint16(min(low+10, math.MaxUint16)), nil
	case high-low < 2:
		return 0, fmt.Errorf("%w %s %s: no priority is free between %d and %d", ErrAnchor, o.Where, o.Anchor, low, high)
	default:
		return uint16(low + (high-low)/2), nil
	}
}
