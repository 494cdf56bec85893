// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nlink"
)

// The ways that a program is held.
const (
	HookTCX    = "tcx"
	HookClsact = "clsact"
	HookPin    = "pin"
)

// Placement is a place that holds a program of ours, of whatever version.
type Placement struct {
	// Index of the device; 0 for a pin.
	Index int
	// Device is its name.
	Device string
	// Program is the name of the program.
	Program string
	// Hook is what holds it: tcx, clsact or pin.
	Hook string
	// ID of the program.
	ID uint32
}

// Step is what became of one place.
type Step struct {
	Placement
	// Old is the program that the place held before, 0 for none. ID is the one
	// that it holds now, 0 for none.
	Old uint32
}

var allPlaces = []place{fromEndpoint, fromUplink, toDevice}

// placements lists the programs of ours on all devices of the calling thread's
// namespace, whatever their group, and the pins of its node.
func (s Site) placements() ([]Placement, error) {
	links, err := nlink.Links()
	if err != nil {
		return nil, err
	}
	var all []Placement
	for _, link := range links {
		found, err := s.placementsOn(link.Attrs())
		if err != nil && !isGone(err) {
			return nil, fmt.Errorf("device %s: %w", link.Attrs().Name, err)
		}
		all = append(all, found...)
	}
	pins, err := s.pinPlacements()
	return append(all, pins...), err
}

// pinPlacements lists the pinned programs of this layout.
func (s Site) pinPlacements() ([]Placement, error) {
	name, err := NodeName()
	if err != nil {
		return nil, err
	}
	var pins []Placement
	for _, p := range allPlaces {
		fd, err := objGet(pinPath(pinDir(s.bpffs(), name), p.program))
		if err != nil {
			continue // no pin, or not ours to see
		}
		info, err := getProgInfo(fd)
		_ = unix.Close(fd) // only read from
		if err != nil {
			return nil, err
		}
		pins = append(pins, Placement{Program: p.program, Hook: HookPin, ID: info.id})
	}
	return pins, nil
}

func (s Site) placementsOn(attrs *netlink.LinkAttrs) ([]Placement, error) {
	var found []Placement
	for _, p := range allPlaces {
		ids, err := queryTCX(attrs.Index, p.tcx)
		if err != nil && !errors.Is(err, errNoTCX) {
			return nil, err
		}
		for _, id := range ids {
			if m, err := ownProgram(id, p.program); err == nil {
				_ = m.program.Close() // only read from
				found = append(found, Placement{attrs.Index, attrs.Name, p.program, HookTCX, id})
			}
		}
		filter, err := ownFilter(attrs.Index, p)
		if err != nil && !errors.Is(err, ErrForeign) {
			return nil, err
		}
		if filter != nil && strings.HasPrefix(filter.Name, filterName+p.program) {
			found = append(found, Placement{attrs.Index, attrs.Name, p.program, HookClsact, uint32(filter.Id)})
		}
	}
	return found, nil
}

// compare lists the places that hold something else than before, in the order
// of the devices.
func compare(before, after []Placement) []Step {
	type key struct {
		index         int
		program, hook string
	}
	steps := map[key]Step{}
	for _, p := range before {
		k := key{p.Index, p.Program, p.Hook}
		steps[k] = Step{Placement: Placement{p.Index, p.Device, p.Program, p.Hook, 0}, Old: p.ID}
	}
	for _, p := range after {
		k := key{p.Index, p.Program, p.Hook}
		steps[k] = Step{Placement: p, Old: steps[k].Old}
	}
	list := []Step{}
	for _, step := range steps {
		if step.Old != step.ID {
			list = append(list, step)
		}
	}
	slices.SortFunc(list, func(a, b Step) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Program, b.Program), cmp.Compare(a.Hook, b.Hook))
	})
	return list
}
