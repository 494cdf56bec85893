// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/ipam"
	"github.com/zipline-cni/zipline/loader"
	"github.com/zipline-cni/zipline/loader/prog"
)

// leftoverJSON is something that was removed, or that gc --dry-run would remove.
type leftoverJSON struct {
	Kind   string `json:"kind" doc:"element (of the nft table), entry (of a map), guard (of a subnet), lease, node (pins or state of a network namespace), or pin (of prog attach)"`
	Object string `json:"object" doc:"what was removed, or with --dry-run would be"`
	Of     string `json:"of" doc:"what it belonged to"`
}

func (a *app) gcCommand() *cobra.Command {
	var dryRun bool
	var dataDirs []string
	c := describes([]leftoverJSON{}, &cobra.Command{
		Use:   "gc",
		Short: "Remove what is left of endpoints that are gone",
		Long: `gc removes, and lists, what is left of endpoints whose device is gone (a container
that died without DEL): elements of the ruleset, map entries, guards of subnets
without endpoints, leases, the pins and state of network namespaces that are gone,
and what prog attach has pinned (--pin NAME) to a device that is gone.

A lease counts as held by nobody if zipline made it, in this network namespace and
since the last boot, the owner's device is not there, and the node has no route to
the address but by zipline. Leases that host-local made, for whatever plugin, are
left alone, and so are all of them on a file system without extended attributes: the
runtime's GC finds those. Leases outside of host-local's default directory need
--data-dir.

What a device belongs to cannot be told without a runtime: its own GC removes
devices that are there.`,
		Example:     "  ziplinectl gc --dry-run",
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(*cobra.Command, []string) error {
			list, err := collectLeftovers(!dryRun, dataDirs)
			if errors.Is(err, loader.ErrNotAllSeen) {
				a.say("state of other network namespaces is left alone: %v", err)
				err = nil
			}
			if err != nil && len(list) == 0 {
				return err
			}
			printErr := printDone(a, list, func(g *grid) { leftoverRows(g, list) })
			return errors.Join(err, printErr)
		},
	})
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only list what would be removed")
	bindDataDirs(c, &dataDirs)
	return c
}

func leftoverRows(g *grid, list []leftoverJSON) {
	g.heading("KIND", "OBJECT", "OF")
	for _, l := range list {
		g.row(l.Kind, l.Object, l.Of)
	}
}

// collectLeftovers goes from what refers to what is referred to: a lease is given
// back when nothing of its owner is left. So its owner has to be gone before all
// of that is looked for: whoever dies meanwhile is for the next time.
func collectLeftovers(remove bool, dataDirs []string) ([]leftoverJSON, error) {
	list := []leftoverJSON{}
	leases, leaseErr := collectLeases(dataDirs, nil)
	found, err := datapath.CollectLeftovers(remove)
	for _, l := range found {
		list = append(list, leftoverJSON(l))
	}
	if err != nil {
		return list, err // leases stay while anything of their owners is left
	}
	if remove && len(leases) > 0 {
		leases, err = collectLeases(dataDirs, leases)
	}
	for _, l := range leases {
		list = append(list, leftoverJSON{"lease", l.network + " " + l.Address.String(), l.Owner.String()})
	}
	if err := errors.Join(leaseErr, err); err != nil {
		return list, err
	}
	site := loader.Site{}
	for _, paths := range []struct {
		kind, of string
		find     func() ([]string, error)
		remove   func(string) error
	}{
		{"pin", "device that is gone", prog.Severed, prog.RemoveSevered},
		// Last: where not all namespaces can be seen, it is the only thing that cannot be told.
		{"node", "network namespace that is gone", site.StalePaths, site.RemoveStale},
	} {
		found, err := paths.find()
		if err != nil {
			return list, err
		}
		for _, path := range found {
			if remove {
				if err := paths.remove(path); err != nil {
					return list, err
				}
			}
			list = append(list, leftoverJSON{paths.kind, path, paths.of})
		}
	}
	return list, nil
}

// staleLease is a lease in a network's directory below a data directory.
type staleLease struct {
	dir, network string
	ipam.Lease
}

// collectLeases lists the leases that nobody holds, or ends those of known that
// still nobody holds.
func collectLeases(dirs []string, known []staleLease) ([]staleLease, error) {
	node, err := loader.NodeName()
	if err != nil {
		return nil, err
	}
	var list []staleLease
	var errs []error
	for _, dir := range dirs {
		networks, err := ipam.Networks(dir)
		errs = append(errs, err)
		for _, network := range networks {
			held := func(l ipam.Lease) bool {
				if known != nil && !slices.Contains(known, staleLease{dir, network, l}) {
					return true
				}
				held, err := datapath.Holds(datapath.Attachment{Network: network, ContainerID: l.Owner.ContainerID, IfName: l.Owner.IfName}, l.Address)
				errs = append(errs, err)
				return held
			}
			stale, err := ipam.Stale(dir, network, node, held, known != nil)
			errs = append(errs, err)
			for _, l := range stale {
				list = append(list, staleLease{dir, network, l})
			}
		}
	}
	return list, errors.Join(errs...)
}
