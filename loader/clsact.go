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
	filterName     = "zipline/from_endpoint"
)

// attachClsact attaches a direct-action filter. An existing filter of ours is
// replaced in one step; the qdisc is made where it is missing and never
// removed, since others may come to use it.
func attachClsact(s *set, index int) error {
	filter, err := ownFilter(index)
	if err != nil {
		return err
	}
	if filter != nil && uint32(filter.Id) == s.info.id {
		return nil
	}
	if filter != nil && !strings.HasPrefix(filter.Name, filterName) {
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
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS,
			Handle: filterHandle, Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: s.program.FD(), Name: filterName, DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("attach clsact filter: %w", err)
	}
	return nil
}

// queryClsact returns the id of the program in our filter, if there is one.
func queryClsact(index int) ([]uint32, error) {
	filter, err := ownFilter(index)
	if filter == nil || err != nil {
		return nil, err
	}
	return []uint32{uint32(filter.Id)}, nil
}

// ownFilter returns what is in our place, or nil. It may be somebody else's.
func ownFilter(index int) (*netlink.BpfFilter, error) {
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	filters, err := netlink.FilterList(device, netlink.HANDLE_MIN_INGRESS)
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
