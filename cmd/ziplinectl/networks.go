// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
)

type networkJSON struct {
	Network   string `json:"network"`
	Endpoints int    `json:"endpoints"`
}

func (a *app) networksCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "networks",
		Short:       "List the networks that have endpoints on this node",
		Example:     "  ziplinectl networks -o json",
		Annotations: map[string]string{needs: needsToRead},
		RunE: func(*cobra.Command, []string) error {
			endpoints, err := datapath.Endpoints()
			if err != nil {
				return err
			}
			networks := []networkJSON{}
			for _, e := range endpoints {
				if n := len(networks); n > 0 && networks[n-1].Network == e.Network {
					networks[n-1].Endpoints++
					continue
				}
				networks = append(networks, networkJSON{e.Network, 1})
			}
			return a.print(networks, func(g *grid) {
				g.heading("NETWORK", "ENDPOINTS")
				for _, n := range networks {
					g.row(n.Network, strconv.Itoa(n.Endpoints))
				}
			})
		},
	}
}
