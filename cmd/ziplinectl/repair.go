// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/cni"
	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/ipam"
)

// repairJSON is one thing that was not as it should be. With --dry-run mended
// says that repair would mend it.
type repairJSON struct {
	Device string `json:"device" doc:"the host veth; empty for what is the node's"`
	Object string `json:"object" doc:"what was not as it should be"`
	Wrong  string `json:"wrong" doc:"what was wrong with it"`
	Mended bool   `json:"mended" doc:"whether it is right now; with --dry-run, whether it would be mended"`
	Reason string `json:"reason" doc:"why it stays as it is; empty if mended"`
}

func (a *app) repairCommand() *cobra.Command {
	var dryRun bool
	var cacheDirs, dataDirs []string
	c := describes([]repairJSON{}, &cobra.Command{
		Use:   "repair",
		Short: "Make right what is wrong with the endpoints of this node",
		Long: `repair compares the node with what its endpoints should be, makes right what is
not, and lists it: programs and pins, map entries, host routes, neighbours, subnet
guards, gateway addresses, sysctls, the nft table and its elements, and group,
alias and settings of the host veths. Programs become those of this binary. It
leaves the containers' own side alone, and changes nothing where nothing is wrong.

What an endpoint should be stands in libcni's cache, as the runtime's ADD was
told. One that is not in it is mended by another of its network that is: they have
the same configuration; its addresses follow from its routes, map entries and
leases. What follows from neither is listed with the reason and stays as it is:
forwarding, the segment, slowPathMark, egressIP and whether to masquerade are
written down nowhere else. Exit code 3 says that something stays.`,
		Example:     "  ziplinectl repair --dry-run",
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(*cobra.Command, []string) error {
			evidence, err := a.evidence(cacheDirs, dataDirs)
			if err != nil {
				return err
			}
			found, err := datapath.Repair(evidence, dryRun)
			return a.printRepaired(found, dryRun, err)
		},
	})
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only list what would be changed")
	bindCacheDirs(c, &cacheDirs)
	bindDataDirs(c, &dataDirs)
	return c
}

func bindCacheDirs(c *cobra.Command, dirs *[]string) {
	c.Flags().StringArrayVar(dirs, "cache-dir", []string{"/var/lib/cni", "/var/lib/cni/cache"}, "directory of libcni's cache, which has the directory results (more: repeat)")
}

// cachedSpecs reads what endpoints should be.
func (a *app) cachedSpecs(cacheDirs []string) map[string]*datapath.Spec {
	all := map[string]*datapath.Spec{}
	for _, dir := range cacheDirs {
		specs, err := cni.CachedSpecs(dir)
		if err != nil {
			a.say("left out: %v", err)
		}
		maps.Copy(all, specs)
	}
	return all
}

// evidence reads what is known besides the kernel's state.
func (a *app) evidence(cacheDirs, dataDirs []string) (datapath.Evidence, error) {
	e := datapath.Evidence{Specs: a.cachedSpecs(cacheDirs), Leased: map[string]datapath.Leased{}}
	for _, dir := range dataDirs {
		networks, err := ipam.Networks(dir)
		if err != nil {
			return e, err
		}
		for _, network := range networks {
			if err := addLeases(e.Leased, dir, network); err != nil {
				return e, err
			}
		}
	}
	return e, nil
}

// addLeases adds what the owners of a network's leases hold.
func addLeases(to map[string]datapath.Leased, dir, network string) error {
	listing, err := ipam.List(filepath.Join(dir, network))
	if err != nil || !listing.Ours {
		return err
	}
	for _, l := range listing.Leases {
		if l.Earlier {
			continue
		}
		attachment := datapath.Attachment{Network: network, ContainerID: l.Owner.ContainerID, IfName: l.Owner.IfName}
		leased := to[attachment.Device()]
		leased.Attachment, leased.Addresses = attachment, append(leased.Addresses, l.Address)
		to[attachment.Device()] = leased
	}
	return nil
}

// printRepaired prints what was found, also where repair could not go on: its error
// is more than that something stays.
func (a *app) printRepaired(found []datapath.Repaired, dryRun bool, err error) error {
	if err != nil && len(found) == 0 {
		return err
	}
	list := []repairJSON{}
	stays := false
	for _, r := range found {
		list = append(list, repairJSON(r))
		stays = stays || !r.Mended
	}
	printErr := printDone(a, list, func(g *grid) { repairRows(g, list, dryRun) })
	switch {
	case err != nil:
		return err
	case printErr == nil && stays:
		return errFindings
	}
	return printErr
}

func repairRows(g *grid, list []repairJSON, dryRun bool) {
	g.heading("STATE", "DEVICE", "OBJECT", "WRONG", "REASON")
	for _, r := range list {
		state := g.good("mended")
		switch {
		case !r.Mended:
			state = g.bad("stays")
		case dryRun:
			state = "would mend"
		}
		g.row(state, r.Device, r.Object, r.Wrong, r.Reason)
	}
}
