// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
)

// Attached is an endpoint as the kernel has it.
type Attached struct {
	// Attachment has what the device's alias tells: a field too long for it is
	// "#" and a hash, and all are empty where an ADD was killed before it set one.
	Attachment
	// HostDevice and Index are of the host veth.
	HostDevice string
	Index      int
	// Up says whether the host veth has a carrier.
	Up bool
	// MTU in bytes.
	MTU int
	// NetnsID is the id that the node's namespace has for the container's, -1
	// where it has none.
	NetnsID int
}

// Endpoints lists the endpoints of the calling thread's namespace by network,
// container id and device.
func Endpoints() ([]Attached, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var list []Attached
	for _, link := range links {
		if attrs := link.Attrs(); isOurs(attrs) {
			list = append(list, attachedOf(attrs))
		}
	}
	slices.SortFunc(list, func(a, b Attached) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.HostDevice, b.HostDevice))
	})
	return list, nil
}

func attachedOf(attrs *netlink.LinkAttrs) Attached {
	a := Attached{
		HostDevice: attrs.Name, Index: attrs.Index, MTU: attrs.MTU, NetnsID: attrs.NetNsID,
		Up: attrs.OperState == netlink.OperUp,
	}
	if fields := strings.Split(attrs.Alias, " "); len(fields) == 4 && fields[0] == aliasMark {
		a.Attachment = Attachment{Network: fields[1], ContainerID: fields[2], IfName: fields[3]}
	}
	return a
}
