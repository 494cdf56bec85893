// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
)

type networkJSON struct {
	Network        string         `json:"network" doc:"name of the network, as in its configuration"`
	Endpoints      int            `json:"endpoints" doc:"number of endpoints on this node"`
	Up             int            `json:"up" doc:"how many of them have a carrier"`
	Subnets        []string       `json:"subnets" doc:"subnets of the endpoints' addresses, as far as the node guards them by a route"`
	DevicePattern  string         `json:"devicePattern" doc:"matches the host devices of the network in iptables and nft rules (nft writes * for +)"`
	Forwarding     forwardingJSON `json:"forwarding" doc:"number of endpoints by how they are carried"`
	Received       trafficJSON    `json:"received" doc:"what came to the containers, by the stack or by eBPF"`
	ReceivedByEBPF trafficJSON    `json:"receivedByEbpf" doc:"the part of it that eBPF delivered past the stack"`
	Sent           trafficJSON    `json:"sent" doc:"what the containers sent"`
	SentPackets    pathJSON       `json:"sentPackets" doc:"what became of the packets that they sent, as far as the programs are told of them"`
}

type forwardingJSON struct {
	Direct  int `json:"direct" doc:"direct: neighbours past the stack, established flows too"`
	Tracked int `json:"tracked" doc:"tracked: established flows past the stack"`
	Kernel  int `json:"kernel" doc:"kernel: all by the stack"`
}

func forwardingOf(counts map[datapath.Forwarding]int) forwardingJSON {
	return forwardingJSON{
		counts[datapath.ForwardingDirect], counts[datapath.ForwardingTracked], counts[datapath.ForwardingKernel],
	}
}

func (a *app) networksCommand() *cobra.Command {
	return describes([]networkJSON{}, &cobra.Command{
		Use:   "networks",
		Short: "List the networks that have endpoints on this node",
		Example: `  ziplinectl networks
  ziplinectl networks -o json`,
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(*cobra.Command, []string) error {
			inspected, err := inspect(nil, datapath.InspectOptions{})
			if err != nil {
				return err
			}
			guards, err := datapath.GuardedSubnets()
			if err != nil {
				return err
			}
			networks := []networkJSON{}
			for _, n := range datapath.Networks(inspected, guards) {
				networks = append(networks, networkJSON{
					Network: n.Name, Endpoints: n.Endpoints, Up: n.Up, Subnets: texts(n.Subnets),
					DevicePattern: n.DevicePattern, Forwarding: forwardingOf(n.Forwarding),
					Received: trafficOf(n.Received), ReceivedByEBPF: trafficOf(n.ByEBPF), Sent: trafficOf(n.Sent), SentPackets: *pathOf(n.SentBy),
				})
			}
			return a.print(networks, func(g *grid) { a.networkRows(g, networks) })
		},
	})
}

func (a *app) networkRows(g *grid, networks []networkJSON) {
	head := []string{"NETWORK", "ENDPOINTS", "UP", "SUBNETS", "DIRECT", "TRACKED", "KERNEL", "RECEIVED", "BY-EBPF", "SENT", "BY-EBPF", "DROPPED"}
	if a.wide() {
		head = append(head, "BYTES-RECEIVED", "BYTES-SENT", "DEVICES")
	}
	g.heading(head...)
	for _, n := range networks {
		row := []string{
			n.Network, number(n.Endpoints), number(n.Up), commas(n.Subnets),
			number(n.Forwarding.Direct), number(n.Forwarding.Tracked), number(n.Forwarding.Kernel),
			number(n.Received.Packets), number(n.ReceivedByEBPF.Packets), number(n.Sent.Packets),
			number(n.SentPackets.ByEBPF), number(n.SentPackets.Dropped),
		}
		if a.wide() {
			row = append(row, number(n.Received.Bytes), number(n.Sent.Bytes), n.DevicePattern)
		}
		g.row(row...)
	}
}
