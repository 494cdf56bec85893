// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader"
)

// endpointNames finds endpoints by what people call them.
type endpointNames struct {
	list    []datapath.Attached
	indexes map[int]datapath.Attached
	devices map[int]string
}

func newEndpointNames() (*endpointNames, error) {
	n := &endpointNames{indexes: map[int]datapath.Attached{}, devices: map[int]string{}}
	return n, n.refresh()
}

// refresh learns of endpoints that have come. Those that have gone keep their
// names: there may be events of theirs.
func (n *endpointNames) refresh() (err error) {
	if n.list, err = datapath.Endpoints(); err != nil {
		return err
	}
	for _, e := range n.list {
		n.indexes[e.Index] = e
		n.devices[e.Index] = e.HostDevice
	}
	return nil
}

func (n *endpointNames) byIndex(index int) datapath.Attached { return n.indexes[index] }

// label is what a person reads: network/container, "-" for what is no endpoint.
func (n *endpointNames) label(index int) string {
	e, ok := n.indexes[index]
	switch {
	case index == 0:
		return "-"
	case !ok:
		return n.device(index)
	case e.ContainerID == "":
		return e.HostDevice
	default:
		return e.Network + "/" + e.ContainerID[:min(len(e.ContainerID), 12)]
	}
}

// device returns the name of a device of the node.
func (n *endpointNames) device(index int) string {
	name, ok := n.devices[index]
	if !ok && index != 0 {
		name = fmt.Sprintf("if%d", index)
		if dev, err := net.InterfaceByIndex(index); err == nil {
			name = dev.Name
		}
		n.devices[index] = name
	}
	return name
}

// ofNetworks returns the host veths of the networks' endpoints.
func (n *endpointNames) ofNetworks(networks []string) []int {
	var indexes []int
	for _, e := range n.list {
		if slices.Contains(networks, e.Network) {
			indexes = append(indexes, e.Index)
		}
	}
	return indexes
}

// find returns the one endpoint that is called so: by its container id or a
// prefix of that, its host device, or an address.
func (n *endpointNames) find(text string) (datapath.Attached, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return n.byAddress(addr.Unmap())
	}
	network, id, qualified := strings.Cut(text, "/")
	if !qualified {
		network, id = "", text
	}
	var found []datapath.Attached
	for _, e := range n.list {
		if e.HostDevice == text || e.ContainerID == id && (network == "" || network == e.Network) {
			return n.only(text, []datapath.Attached{e})
		}
		if id != "" && strings.HasPrefix(e.ContainerID, id) && (network == "" || network == e.Network) {
			found = append(found, e)
		}
	}
	return n.only(text, found)
}

func (n *endpointNames) only(text string, found []datapath.Attached) (datapath.Attached, error) {
	switch len(found) {
	case 0:
		return datapath.Attached{}, fmt.Errorf("endpoint %q: no such endpoint on this node", text)
	case 1:
		return found[0], nil
	}
	return datapath.Attached{}, fmt.Errorf("endpoint %q: there are %d of that name: say more of it, or the host device", text, len(found))
}

func (n *endpointNames) byAddress(addr netip.Addr) (datapath.Attached, error) {
	node, err := loader.Find(0)
	if err != nil {
		return datapath.Attached{}, err
	}
	defer func() { _ = node.Close() }() // only read from
	at, err := node.Lookup(addr)
	if err != nil {
		return datapath.Attached{}, fmt.Errorf("endpoint %s: %w", addr, err)
	}
	e, ok := n.indexes[at.IfIndex]
	if !ok {
		return e, fmt.Errorf("endpoint %s: no device with index %d", addr, at.IfIndex)
	}
	return e, nil
}
