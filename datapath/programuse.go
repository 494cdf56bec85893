// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"errors"
	"os"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/loader"
)

// ProgramUse is a program of ours and where it is.
type ProgramUse struct {
	loader.ProgramStatus
	// Current says that it is of the node's set. Others are versions that a
	// device still has.
	Current bool
	// Counted says that the kernel counts its runs now.
	Counted bool
	Places  []Place
}

// Place is a side of a device.
type Place struct {
	Device          string
	Index           int
	Hook, Direction string
}

// Programs lists our programs on this node by name and id, with the host veths
// and uplinks that have them.
func Programs() (_ []ProgramUse, err error) {
	list, err := Endpoints()
	if err != nil {
		return nil, err
	}
	node, err := FindNode(list)
	if err != nil {
		return nil, err
	}
	var current []uint32
	names := map[int]string{}
	for _, e := range list {
		names[e.Index] = e.HostDevice
	}
	if node != nil {
		defer func() { err = errors.Join(err, node.Close()) }()
		current = node.Programs()
		if err := addUplinkNames(node, names); err != nil {
			return nil, err
		}
	}
	places, err := programPlaces(names)
	if err != nil {
		return nil, err
	}
	for _, id := range current {
		if _, ok := places[id]; !ok {
			places[id] = nil // loaded, and attached nowhere
		}
	}
	return describePrograms(places, current)
}

func addUplinkNames(node *loader.Node, names map[int]string) error {
	uplinks, err := node.Uplinks()
	if err != nil {
		return err
	}
	for _, index := range uplinks {
		if link, err := netlink.LinkByIndex(index); err == nil {
			names[index] = link.Attrs().Name
		}
	}
	return nil
}

func programPlaces(names map[int]string) (map[uint32][]Place, error) {
	indexes := make([]int, 0, len(names))
	for index := range names {
		indexes = append(indexes, index)
	}
	attached, err := loader.AttachedPrograms(indexes)
	if err != nil {
		return nil, err
	}
	places := map[uint32][]Place{}
	for index, programs := range attached {
		for _, p := range programs {
			if p.Ours {
				places[p.ID] = append(places[p.ID], Place{names[index], index, p.Hook, p.Direction})
			}
		}
	}
	return places, nil
}

func describePrograms(places map[uint32][]Place, current []uint32) ([]ProgramUse, error) {
	counted := loader.StatsEnabled()
	programs := make([]ProgramUse, 0, len(places))
	for id, at := range places {
		status, err := loader.DescribeProgram(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // replaced meanwhile
		}
		if err != nil {
			return nil, err
		}
		slices.SortFunc(at, func(a, b Place) int {
			return cmp.Or(cmp.Compare(a.Hook, b.Hook), cmp.Compare(b.Direction, a.Direction), cmp.Compare(a.Device, b.Device))
		})
		programs = append(programs, ProgramUse{*status, slices.Contains(current, id), counted, at})
	}
	slices.SortFunc(programs, func(a, b ProgramUse) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return programs, nil
}
