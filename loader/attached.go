// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AttachedProgram is a program on a device, in the order in which packets meet
// them: TCX before clsact, each by its place.
type AttachedProgram struct {
	ID   uint32
	Name string
	// Hook is "tcx" or "clsact", Direction "ingress" or "egress", as seen from
	// the device.
	Hook, Direction string
	// Ours says that it is a program of this package, of whatever version.
	Ours bool
}

// AttachedPrograms returns the eBPF programs on each of the devices, ours and
// others'. A device that is gone has none.
func AttachedPrograms(indexes []int) (map[int][]AttachedProgram, error) {
	q := &query{known: map[uint32]AttachedProgram{}}
	filtered, err := clsactDevices()
	if err != nil {
		return nil, err
	}
	found := map[int][]AttachedProgram{}
	for _, index := range indexes {
		list, err := q.device(index, filtered[index])
		if err != nil && !isGone(err) {
			return nil, fmt.Errorf("query programs of device %d: %w", index, err)
		}
		found[index] = list
	}
	return found, nil
}

// query remembers the programs that it has met: there are few, on many devices.
type query struct {
	known map[uint32]AttachedProgram // by id; without a place
}

// sides are the two ways through a device.
var sides = []struct {
	direction string
	tcx       ebpf.AttachType
	clsact    uint32
}{
	{"ingress", ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS},
	{"egress", ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS},
}

func (q *query) device(index int, clsact bool) (list []AttachedProgram, err error) {
	for _, side := range sides {
		ids, err := queryTCX(index, side.tcx)
		if err != nil && !errors.Is(err, errNoTCX) {
			return nil, err
		}
		list = q.add(list, ids, "tcx", side.direction)
		if !clsact {
			continue
		}
		if ids, err = filterPrograms(index, side.clsact); err != nil {
			return nil, err
		}
		list = q.add(list, ids, "clsact", side.direction)
	}
	return list, nil
}

func (q *query) add(list []AttachedProgram, ids []uint32, hook, direction string) []AttachedProgram {
	for _, id := range ids {
		p, ok := q.known[id]
		if !ok {
			p = identify(id)
			q.known[id] = p
		}
		p.Hook, p.Direction = hook, direction
		list = append(list, p)
	}
	return list
}

// identify names a program. One that is gone since has no name.
func identify(id uint32) AttachedProgram {
	p := AttachedProgram{ID: id}
	fd, err := progByID(id)
	if err != nil {
		return p
	}
	info, err := getProgInfo(fd)
	_ = unix.Close(fd) // only read from
	if err != nil {
		return p
	}
	p.Name = info.name
	p.Ours = info.kind == unix.BPF_PROG_TYPE_SCHED_CLS &&
		(info.name == fromEndpoint.program || slices.Contains(siblings, info.name)) && slices.ContainsFunc(info.maps, looksLikeCounters)
	return p
}

// clsactDevices returns the indexes of the devices that have filters at all.
func clsactDevices() (map[int]bool, error) {
	qdiscs, err := netlink.QdiscList(nil)
	for try := 0; errors.Is(err, netlink.ErrDumpInterrupted) && try < 5; try++ {
		qdiscs, err = netlink.QdiscList(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	devices := map[int]bool{}
	for _, qdisc := range qdiscs {
		if qdisc.Type() == "clsact" {
			devices[qdisc.Attrs().LinkIndex] = true
		}
	}
	return devices, nil
}

// filterPrograms returns the programs of the eBPF filters on a side of a device,
// by priority.
func filterPrograms(index int, parent uint32) ([]uint32, error) {
	filters, err := netlink.FilterList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, parent)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, nil // the qdisc is gone
	}
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	var ids []uint32
	for _, f := range filters {
		if bpf, ok := f.(*netlink.BpfFilter); ok && bpf.Id != 0 { // 0: classic BPF
			ids = append(ids, uint32(bpf.Id))
		}
	}
	return ids, nil
}
