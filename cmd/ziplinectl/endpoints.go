// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader"
)

type endpointJSON struct {
	Network         string         `json:"network" doc:"name of the network; a name too long for the device's alias is # and a hash"`
	ContainerID     string         `json:"containerId" doc:"the runtime's id; likewise"`
	IfName          string         `json:"ifName" doc:"the device in the container"`
	Addresses       []string       `json:"addresses" doc:"addresses that the node routes to it"`
	MAC             string         `json:"mac" doc:"MAC of the container's device; empty where it cannot be read"`
	Device          string         `json:"device" doc:"the device on the node"`
	Index           int            `json:"index" doc:"its interface index"`
	HostMAC         string         `json:"hostMac" doc:"its MAC"`
	MTU             int            `json:"mtu" doc:"MTU in bytes"`
	Up              bool           `json:"up" doc:"whether it has a carrier"`
	Netns           netnsJSON      `json:"netns" doc:"the container's network namespace"`
	Tier            string         `json:"tier" doc:"the most that its flows are carried by: conntrack, direct or kernel"`
	Forwarding      string         `json:"forwarding" doc:"what is published to the programs: direct, tracked or kernel"`
	SourceCheck     bool           `json:"sourceCheck" doc:"packets from addresses that are not its own are dropped"`
	MACCheck        bool           `json:"macCheck" doc:"packets from another MAC are dropped by the programs"`
	Programs        []attachedJSON `json:"programs" doc:"eBPF programs on the device, in the order in which packets meet them"`
	Received        *trafficJSON   `json:"received" doc:"all that came to the container, by the stack or by eBPF; null where its device cannot be read"`
	ReceivedByStack trafficJSON    `json:"receivedByStack" doc:"the part of it that came through the device on the node: what the stack delivered, and answers of the programs to ARP and ND"`
	ReceivedByEBPF  *trafficJSON   `json:"receivedByEbpf" doc:"the rest: what eBPF delivered past the stack and that device; null likewise"`
	Sent            trafficJSON    `json:"sent" doc:"all that the container sent"`
	SentPackets     *pathJSON      `json:"sentPackets" doc:"what became of the packets that it sent; null where the programs are not told of it"`
	Problem         string         `json:"problem" doc:"what is wrong with its programs; empty for nothing"`
}

type pathJSON struct {
	ByEBPF  uint64 `json:"byEbpf" doc:"carried past the stack, or answered"`
	Dropped uint64 `json:"dropped" doc:"dropped by the programs"`
	ByStack uint64 `json:"byStack" doc:"left to the stack"`
}

func pathOf(p loader.Path) *pathJSON { return &pathJSON{p.Carried, p.Dropped, p.Left} }

type netnsJSON struct {
	ID    int    `json:"id" doc:"the id that the node's namespace has for it, -1 for none (ip netns list-id)"`
	Inode uint64 `json:"inode" doc:"its number as in net:[4026532000], 0 where it was not found"`
	Path  string `json:"path" doc:"a file that it is bound to, empty for none"`
	PID   int    `json:"pid" doc:"a process in it, 0 where it has a path or none was found"`
}

type attachedJSON struct {
	Name      string `json:"name" doc:"name of the program"`
	ID        uint32 `json:"id" doc:"its id"`
	Hook      string `json:"hook" doc:"tcx or clsact"`
	Direction string `json:"direction" doc:"ingress or egress, as seen from the device: a container's packets enter the node at ingress"`
	Ours      bool   `json:"ours" doc:"whether it is zipline's"`
}

func (a *app) endpointsCommand() *cobra.Command {
	filter := &endpointFilter{}
	c := describes([]endpointJSON{}, &cobra.Command{
		Use:   "endpoints [NAME…]",
		Short: "List the endpoints of this node: addresses, devices, programs, packets by path",
		Long: `List the endpoints of this node. NAME is the start of a container id, also as
network/id, a device of the node, or an address.

RECEIVED is all that came to the container, BY-EBPF the part of it that eBPF
delivered past the stack: what the container's device received and the device on
the node did not send. Kernels before 6.7 (and stable ones without "bpf: Fix
dev's rx stats for bpf_redirect_peer traffic") do not count what is delivered so;
there both lack it. SENT is all that the container sent, and the BY-EBPF and
DROPPED after it are the packets of it that the programs carried past the stack
or answered, and that they dropped.`,
		Example: `  ziplinectl endpoints
  ziplinectl endpoints 4f1c -o wide
  ziplinectl endpoints --network pods --address 10.62.0.0/24 -o json`,
		Annotations:       map[string]string{needs: needsRoot},
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeEndpoints,
		RunE: func(_ *cobra.Command, names []string) error {
			filter.names = names
			if err := filter.parse(); err != nil {
				return err
			}
			// A look at every process is for those who see its result.
			inspected, err := inspect(filter, datapath.InspectOptions{Netns: a.format != formatTable})
			if err != nil {
				return err
			}
			endpoints := []endpointJSON{}
			for i := range inspected {
				endpoints = append(endpoints, endpointOf(&inspected[i]))
			}
			return a.print(endpoints, func(g *grid) { a.endpointRows(g, endpoints) })
		},
	})
	filter.bind(c)
	return c
}

// inspect lists the endpoints that a filter chooses, nil for all of them.
func inspect(filter *endpointFilter, opts datapath.InspectOptions) (_ []datapath.Inspected, err error) {
	list, err := datapath.Endpoints()
	if err != nil {
		return nil, err
	}
	node, err := datapath.FindNode(list)
	if err != nil {
		return nil, err
	}
	if node != nil {
		defer func() { err = errors.Join(err, node.Close()) }()
	}
	if filter != nil {
		if list, err = filter.choose(list); err != nil {
			return nil, err
		}
	}
	return datapath.Inspect(list, node, opts)
}

func endpointOf(e *datapath.Inspected) endpointJSON {
	v := endpointJSON{
		Network: e.Network, ContainerID: e.ContainerID, IfName: e.IfName, Addresses: texts(e.Addresses),
		Device: e.HostDevice, Index: e.Index, HostMAC: e.HostMAC.String(), MTU: e.MTU, Up: e.Up,
		Netns: netnsJSON{ID: e.NetnsID, Inode: e.Netns.Inode, Path: e.Netns.Path, PID: e.Netns.PID},
		Tier:  string(e.Tier), Forwarding: string(e.Forwarding), SourceCheck: e.SourceCheck, MACCheck: e.MACCheck,
		Programs: attachedOf(e.Programs), ReceivedByStack: trafficOf(e.ToContainer), Sent: trafficOf(e.FromContainer),
		Problem: errorText(e.Wrong),
	}
	if e.Inside != nil {
		received, carried := trafficOf(e.Inside.Received), trafficOf(e.ByEBPF())
		v.MAC, v.Received, v.ReceivedByEBPF = e.Inside.MAC.String(), &received, &carried
	}
	if e.Sent != nil {
		v.SentPackets = pathOf(*e.Sent)
	}
	return v
}

func attachedOf(programs []loader.AttachedProgram) []attachedJSON {
	list := []attachedJSON{}
	for _, p := range programs {
		list = append(list, attachedJSON{p.Name, p.ID, p.Hook, p.Direction, p.Ours})
	}
	return list
}

func (a *app) endpointRows(g *grid, endpoints []endpointJSON) {
	head := []string{"NETWORK", "CONTAINER", "IFNAME", "ADDRESSES", "DEVICE", "STATE", "FORWARDING", "RECEIVED", "BY-EBPF", "SENT", "BY-EBPF", "DROPPED"}
	if a.wide() {
		head = append(head, "TIER", "MAC", "HOST-MAC", "MTU", "NETNS", "PROGRAMS")
	}
	g.heading(head...)
	for i := range endpoints {
		e := &endpoints[i]
		row := []string{
			e.Network, short(e.ContainerID), e.IfName, commas(e.Addresses), e.Device, e.state(g), e.Forwarding,
			packets(e.Received), packets(e.ReceivedByEBPF), number(e.Sent.Packets), "-", "-",
		}
		if e.SentPackets != nil {
			row[10], row[11] = number(e.SentPackets.ByEBPF), number(e.SentPackets.Dropped)
		}
		if a.wide() {
			row[1] = e.ContainerID
			row = append(row, e.Tier, e.MAC, e.HostMAC, number(e.MTU), e.Netns.text(), programsText(e.Programs))
		}
		g.row(row...)
	}
}

func (e *endpointJSON) state(g *grid) string {
	switch {
	case !e.Up:
		return g.bad("down")
	case e.Problem != "":
		return g.bad("wrong-programs")
	default:
		return g.good("up")
	}
}

// text is the namespace in one word, the shortest that leads there.
func (n netnsJSON) text() string {
	switch {
	case n.Path != "" && strings.HasSuffix(filepath.Dir(n.Path), "run/netns"):
		return filepath.Base(n.Path) // as ip netns knows it
	case n.Path != "":
		return n.Path
	case n.PID != 0:
		return fmt.Sprintf("pid:%d", n.PID)
	case n.ID >= 0:
		return fmt.Sprintf("id:%d", n.ID)
	default:
		return ""
	}
}

func packets(t *trafficJSON) string {
	if t == nil {
		return ""
	}
	return number(t.Packets)
}

func programsText(programs []attachedJSON) string {
	words := make([]string, 0, len(programs))
	for _, p := range programs {
		words = append(words, fmt.Sprintf("%s/%s:%s[%d]", p.Hook, p.Direction, p.Name, p.ID))
	}
	return strings.Join(words, ",")
}

func commas(words []string) string { return strings.Join(words, ",") }
