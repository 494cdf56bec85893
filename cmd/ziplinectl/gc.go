// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/ipam"
	"github.com/zipline-cni/zipline/loader"
)

// leftoverJSON is something that was removed, or that gc --dry-run would remove.
type leftoverJSON struct {
	Kind   string `json:"kind" doc:"element (of the nft table), entry (of a map), guard (of a subnet), lease, or node (pins or state of a network namespace)"`
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
without endpoints, leases, and the pins and state of network namespaces that are gone.

A lease counts as held by nobody if zipline has managed its network, the owner's
device is not in this network namespace, and the node has no route to the address
but by zipline. Leases outside of host-local's default directory need --data-dir.
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
// back when nothing of its owner is left.
func collectLeftovers(remove bool, dataDirs []string) ([]leftoverJSON, error) {
	list := []leftoverJSON{}
	found, err := datapath.CollectLeftovers(remove)
	for _, l := range found {
		list = append(list, leftoverJSON(l))
	}
	if err != nil {
		return list, err // leases stay while anything of their owners is left
	}
	for _, dir := range dataDirs {
		leases, err := collectLeases(dir, remove)
		list = append(list, leases...)
		if err != nil {
			return list, err
		}
	}
	site := loader.Site{}
	paths, err := site.StalePaths()
	if err != nil {
		return list, err
	}
	for _, path := range paths {
		if remove {
			if err := site.RemoveStale(path); err != nil {
				return list, err
			}
		}
		list = append(list, leftoverJSON{"node", path, "network namespace that is gone"})
	}
	return list, nil
}

func collectLeases(dir string, remove bool) ([]leftoverJSON, error) {
	networks, err := ipam.Networks(dir)
	if err != nil {
		return nil, err
	}
	var list []leftoverJSON
	var errs []error
	for _, network := range networks {
		listing, err := ipam.List(filepath.Join(dir, network))
		if err != nil || !listing.Ours {
			errs = append(errs, err)
			continue
		}
		held := func(l ipam.Lease) bool {
			attachment := datapath.Attachment{Network: network, ContainerID: l.Owner.ContainerID, IfName: l.Owner.IfName}
			// Of the older format, without an interface, nothing can be said.
			held, err := datapath.Holds(attachment, l.Address)
			errs = append(errs, err)
			return held || l.Owner.IfName == ""
		}
		stale, err := ipam.Stale(dir, network, held, remove)
		errs = append(errs, err)
		for _, l := range stale {
			list = append(list, leftoverJSON{"lease", network + " " + l.Address.String(), l.Owner.String()})
		}
	}
	return list, errors.Join(errs...)
}
