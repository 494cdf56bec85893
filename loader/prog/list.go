// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nlink"
)

// Direction is a side of a device, as the device sees it.
type Direction string

// The directions.
const (
	Ingress Direction = "ingress"
	Egress  Direction = "egress"
)

func (d Direction) tcx() ebpf.AttachType {
	if d == Egress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

func (d Direction) clsact() uint32 {
	if d == Egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// The hooks.
const (
	HookTCX    = "tcx"
	HookClsact = "clsact"
)

// Attached is a program on a side of a device.
type Attached struct {
	Device    string
	Index     int
	Direction Direction
	Hook      string
	// Position counts from 1, in the order in which packets meet the programs of
	// a hook; those of tcx come before those of clsact.
	Position int
	ID       uint32
	Name     string
	Tag      string
	// LinkID is 0 where the device owns the attachment.
	LinkID uint32
	// Pin is the path of the link's pin; empty for none that can be seen.
	Pin string
	// Priority and Handle of the filter, for clsact.
	Priority uint16
	Handle   uint32
}

// ErrNoDevice says that no device has the name.
var ErrNoDevice = errors.New("there is no device")

// List lists the programs on a device, or with "" on all devices. Returns
// [ErrNoDevice].
func List(device string) ([]Attached, error) {
	links, err := devices(device)
	if err != nil {
		return nil, err
	}
	pins := linkPins()
	list := []Attached{}
	for _, l := range links {
		for _, d := range []Direction{Ingress, Egress} {
			found, err := listSide(l.Attrs(), d)
			if errors.Is(err, unix.ENODEV) && device == "" {
				continue // gone since
			}
			if err != nil {
				return nil, fmt.Errorf("list programs of %s: %w", l.Attrs().Name, err)
			}
			list = append(list, found...)
		}
	}
	for i := range list {
		list[i].Pin = pins[list[i].LinkID]
	}
	return list, nil
}

func devices(name string) ([]netlink.Link, error) {
	if name != "" {
		l, err := netlink.LinkByName(name)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil, fmt.Errorf("%w %s in this network namespace", ErrNoDevice, name)
		}
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", name, err)
		}
		return []netlink.Link{l}, nil
	}
	return nlink.Links()
}

func listSide(attrs *netlink.LinkAttrs, d Direction) ([]Attached, error) {
	list, err := listTCX(attrs, d)
	if err != nil && !errors.Is(err, errNoTCX) {
		return nil, err
	}
	filters, err := filtersOf(attrs.Index, d)
	if err != nil {
		return nil, err
	}
	for i, f := range filters {
		list = append(list, Attached{
			Device: attrs.Name, Index: attrs.Index, Direction: d, Hook: HookClsact, Position: i + 1,
			ID: uint32(f.Id), Name: nameOf(uint32(f.Id), f.Name), Tag: f.Tag, Priority: f.Priority, Handle: f.Handle,
		})
	}
	return list, nil
}

var errNoTCX = errors.New("this kernel has no TCX (it came with Linux 6.6), whose links are what can be pinned")

// queryPrograms is another one in tests, for a kernel without TCX.
var queryPrograms = link.QueryPrograms

func listTCX(attrs *netlink.LinkAttrs, d Direction) ([]Attached, error) {
	result, err := queryPrograms(link.QueryOptions{Target: attrs.Index, Attach: d.tcx()})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		return nil, errNoTCX
	}
	if err != nil {
		return nil, err
	}
	var list []Attached
	for i, p := range result.Programs {
		a := Attached{
			Device: attrs.Name, Index: attrs.Index, Direction: d, Hook: HookTCX, Position: i + 1, ID: uint32(p.ID),
		}
		if id, ok := p.LinkID(); ok {
			a.LinkID = uint32(id)
		}
		if info, err := infoOf(a.ID); err == nil {
			a.Name, a.Tag = info.Name, info.Tag
		}
		list = append(list, a)
	}
	return list, nil
}

// filtersOf returns the eBPF filters of a side in the order in which packets
// meet them.
func filtersOf(index int, d Direction) ([]*netlink.BpfFilter, error) {
	filters, err := netlink.FilterList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, d.clsact())
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, nil // no qdisc
	}
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	var found []*netlink.BpfFilter
	for _, f := range filters {
		// A filter of classic BPF has no program with an id.
		if b, ok := f.(*netlink.BpfFilter); ok && b.Id != 0 {
			found = append(found, b)
		}
	}
	slices.SortStableFunc(found, func(a, b *netlink.BpfFilter) int { return cmp.Compare(a.Priority, b.Priority) })
	return found, nil
}

// nameOf returns the name of a program, or what a filter calls it.
func nameOf(id uint32, fallback string) string {
	if info, err := infoOf(id); err == nil && info.Name != "" {
		return info.Name
	}
	return fallback
}

func infoOf(id uint32) (*ebpf.ProgramInfo, error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	defer func() { _ = p.Close() }() // only read from
	return p.Info()
}

// linkPins returns the paths of the pinned links that can be seen, by link id.
func linkPins() map[uint32]string {
	pins := map[uint32]string{}
	// What cannot be read is not ours to name.
	_ = filepath.WalkDir(bpffs, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return nil // a program, a map, or the kernel's own
		}
		if info, err := l.Info(); err == nil {
			pins[uint32(info.ID)] = path
		}
		_ = l.Close() // only read from
		return nil
	})
	return pins
}
