// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Our place among the filters of a device: a priority and a handle that nobody
// else uses ("zl" in ASCII). Filters with a lower priority run before.
const (
	filterPriority = 31340
	filterHandle   = 31340
	filterName     = "zipline/"
)

// attachClsact attaches a direct-action filter. An existing filter of ours is
// replaced in one step; the qdisc is made where it is missing and never
// removed, since others may come to use it.
func attachClsact(m *member, index int, p place) error {
	filter, err := ownFilter(index, p)
	if err != nil {
		return err
	}
	if filter != nil && uint32(filter.Id) == m.info.id {
		return nil
	}
	if filter != nil && !strings.HasPrefix(filter.Name, filterName+p.program) {
		return fmt.Errorf("filter %q at priority %d: %w", filter.Name, filterPriority, ErrForeign)
	}
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact qdisc: %w", err)
	}
	err = netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: p.clsact,
			Handle: filterHandle, Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: m.program.FD(), Name: filterName + p.program, DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("attach clsact filter: %w", err)
	}
	return nil
}

// queryClsact returns the id of the program in our filter, if there is one.
func queryClsact(index int, p place) ([]uint32, error) {
	filter, err := ownFilter(index, p)
	if filter == nil || err != nil {
		return nil, err
	}
	return []uint32{uint32(filter.Id)}, nil
}

// ownFilter returns what is in our place, or nil. It may be somebody else's.
func ownFilter(index int, p place) (*netlink.BpfFilter, error) {
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	filters, err := netlink.FilterList(device, p.clsact)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, nil // no qdisc
	}
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	for _, f := range filters {
		attrs := f.Attrs()
		if attrs.Priority != filterPriority || attrs.Handle != filterHandle {
			continue
		}
		if bpf, ok := f.(*netlink.BpfFilter); ok {
			return bpf, nil
		}
		return nil, fmt.Errorf("%s filter at priority %d: %w", f.Type(), filterPriority, ErrForeign)
	}
	return nil, nil
}

// detachClsact deletes the filter. The qdisc stays, since others may use it.
func detachClsact(index int, p place) error {
	filter, err := ownFilter(index, p)
	if filter == nil || err != nil || !strings.HasPrefix(filter.Name, filterName+p.program) {
		return err
	}
	if err := netlink.FilterDel(filter); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete clsact filter: %w", err)
	}
	return nil
}
