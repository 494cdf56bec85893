// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/zipline-cni/zipline/bpf"
)

// Dead is what the maps say of devices that are not alive.
type Dead struct {
	Endpoints map[netip.Addr]int
	Devices   []int
	Uplinks   []int
}

// Dead lists what [Node.Collect] would remove; with an error, what of it could be
// read.
func (n *Node) Dead(alive func(index int) bool) (Dead, error) {
	endpoints, err := n.endpoints()
	dead := Dead{Endpoints: map[netip.Addr]int{}}
	for addr, ep := range endpoints {
		if !alive(ep.IfIndex) {
			dead.Endpoints[addr] = ep.IfIndex
		}
	}
	devices, deviceErr := entries[uint32, bpf.ZiplineDevice](n.maps[bpf.ZiplineMapDevices])
	for index := range devices {
		if !alive(int(index)) {
			dead.Devices = append(dead.Devices, int(index))
		}
	}
	uplinks, uplinkErr := n.Uplinks()
	dead.Uplinks = slices.DeleteFunc(uplinks, alive)
	slices.Sort(dead.Devices)
	slices.Sort(dead.Uplinks)
	return dead, errors.Join(err, deviceErr, uplinkErr)
}

// Collect removes what is published of devices that are not alive. It goes on
// after an error and returns all of them joined.
func (n *Node) Collect(alive func(index int) bool) error {
	dead, err := n.Dead(alive)
	errs := []error{err}
	for addr, index := range dead.Endpoints {
		errs = append(errs, n.Delete(addr, index))
	}
	for _, index := range dead.Devices {
		errs = append(errs, n.Forget(index))
	}
	for _, index := range dead.Uplinks {
		errs = append(errs, remove(n.maps[bpf.ZiplineMapUplinks], uint32(index)))
	}
	return errors.Join(errs...)
}
