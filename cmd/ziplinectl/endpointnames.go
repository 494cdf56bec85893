// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"

	"github.com/zipline-cni/zipline/datapath"
)

// endpointNames tells what people call the devices of endpoints.
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
	}
	return label(e)
}

func label(e datapath.Attached) string {
	if e.ContainerID == "" {
		return e.HostDevice
	}
	return e.Network + "/" + short(e.ContainerID)
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
