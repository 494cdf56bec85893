// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/ipam"
)

// The states of a lease.
const (
	leaseHeld    = "held"    // an endpoint of this node has it
	leaseStale   = "stale"   // nobody has it: GC frees it
	leasePending = "pending" // nobody has it yet, perhaps: it is seconds old
	leaseUnknown = "unknown" // nobody has it that zipline knows, and the directory is another plugin's
)

// pendingTime is how long an ADD, whose first step the lease is, may be on its way.
const pendingTime = 30 * time.Second

type leaseJSON struct {
	Network     string `json:"network" doc:"name of the network: the directory's"`
	Address     string `json:"address" doc:"the leased address"`
	ContainerID string `json:"containerId" doc:"who leased it"`
	IfName      string `json:"ifName" doc:"the device in the container; empty in host-local's older format"`
	Device      string `json:"device" doc:"the endpoint's device on the node, empty for none"`
	State       string `json:"state" doc:"held: an endpoint of this node has it; stale: none has, GC frees it; pending: none has, but it is so young that an ADD may be under way; unknown: none has, and another plugin leased it"`
	Why         string `json:"why" doc:"why it is stale; empty for others"`
	Made        string `json:"made" doc:"when it was made (RFC 3339, UTC)"`
	File        string `json:"file" doc:"the lease's file"`
}

func (a *app) leasesCommand() *cobra.Command {
	var dirs, networks []string
	stale := false
	c := describes([]leaseJSON{}, &cobra.Command{
		Use:   "leases",
		Short: "List the leased addresses, who holds them, and those that nobody does",
		Long: `List the leases in the data directories of host-local, which zipline shares with
it. It reads them as they lie there and changes nothing. The name of a network
follows from its directory; a configuration with another ipam.dataDir needs
--data-dir.`,
		Example: `  ziplinectl leases
  ziplinectl leases --network pods --stale
  ziplinectl leases --data-dir /var/lib/cni/networks --data-dir /run/podman/ipam`,
		RunE: func(*cobra.Command, []string) error {
			leases, err := readLeases(dirs, networks)
			if err != nil {
				return err
			}
			if stale {
				leases = slices.DeleteFunc(leases, func(l leaseJSON) bool { return l.State != leaseStale })
			}
			return a.print(leases, func(g *grid) { a.leaseRows(g, leases) })
		},
	})
	bindDataDirs(c, &dirs)
	c.Flags().StringSliceVar(&networks, "network", nil, "only this network (more: repeat, or separate by commas)")
	c.Flags().BoolVar(&stale, "stale", false, "only those that nobody holds")
	completeFlag(c, "network", func() []string {
		names, _ := ipam.Networks(ipam.DefaultDataDir) // a completion has nobody to tell
		return names
	})
	return c
}

// bindDataDirs adds the flag of commands that read leases.
func bindDataDirs(c *cobra.Command, dirs *[]string) {
	c.Flags().StringArrayVar(dirs, "data-dir", []string{ipam.DefaultDataDir}, "ipam.dataDir: the directory that has one directory of leases for each network (more: repeat)")
}

// readLeases reads the leases of these networks, of all where none is named.
func readLeases(dirs, networks []string) ([]leaseJSON, error) {
	var listings []*ipam.Listing
	var paths []string
	for _, dir := range dirs {
		names, err := ipam.Networks(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if len(networks) > 0 && !slices.Contains(networks, name) {
				continue
			}
			path := filepath.Join(dir, name)
			listing, err := ipam.List(path)
			if err != nil {
				return nil, err
			}
			listings, paths = append(listings, listing), append(paths, path)
		}
	}
	// After the leases: an ADD that was under way has its device by now, or its
	// lease is young.
	endpoints, err := datapath.Endpoints()
	if err != nil {
		return nil, err
	}
	leases := []leaseJSON{}
	for i, listing := range listings {
		leases = append(leases, judgeLeases(listing, endpoints, paths[i])...)
	}
	return leases, nil
}

// judgeLeases says of each lease who has it.
func judgeLeases(listing *ipam.Listing, endpoints []datapath.Attached, dir string) []leaseJSON {
	leases := make([]leaseJSON, 0, len(listing.Leases))
	for _, l := range listing.Leases {
		v := leaseJSON{
			Network: listing.Network, Address: l.Address.String(), ContainerID: l.Owner.ContainerID, IfName: l.Owner.IfName,
			Made: timestamp(l.Modified), File: filepath.Join(dir, l.Address.String()),
		}
		at := slices.IndexFunc(endpoints, holder(listing.Network, l.Owner))
		switch {
		case at >= 0:
			v.State, v.Device = leaseHeld, endpoints[at].HostDevice
		case !listing.Ours:
			v.State = leaseUnknown
		case l.Earlier:
			v.State, v.Why = leaseStale, "made before the last boot"
		case time.Since(l.Modified) < pendingTime:
			v.State = leasePending
		default:
			v.State, v.Why = leaseStale, "its container has no endpoint on this node"
		}
		leases = append(leases, v)
	}
	return leases
}

// holder tells the endpoint that a lease is of. The device's name follows from
// the owner's whole names, which the alias may have shortened.
func holder(network string, owner ipam.Owner) func(datapath.Attached) bool {
	if owner.IfName == "" {
		return func(e datapath.Attached) bool { return e.Network == network && e.ContainerID == owner.ContainerID }
	}
	device := datapath.Attachment{Network: network, ContainerID: owner.ContainerID, IfName: owner.IfName}.Device()
	return func(e datapath.Attached) bool { return e.HostDevice == device }
}

func (a *app) leaseRows(g *grid, leases []leaseJSON) {
	head := []string{"NETWORK", "ADDRESS", "CONTAINER", "IFNAME", "DEVICE", "STATE", "MADE"}
	if a.wide() {
		head = append(head, "FILE", "WHY")
	}
	g.heading(head...)
	for _, l := range leases {
		state := g.good(l.State)
		switch l.State {
		case leaseStale:
			state = g.bad(l.State)
		case leasePending, leaseUnknown:
			state = g.dim(l.State)
		}
		row := []string{l.Network, l.Address, short(l.ContainerID), l.IfName, l.Device, state, l.Made}
		if a.wide() {
			row[2] = l.ContainerID
			row = append(row, l.File, l.Why)
		}
		g.row(row...)
	}
}
