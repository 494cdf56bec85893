// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nlink"
)

// defaultMTU is what the kernel gives a veth (ETH_DATA_LEN).
const defaultMTU = 1500

// bigTCPSize is the largest packet on a veth with BIG TCP: measured best of
// 128, 192 and 256 KiB between two containers.
const bigTCPSize = 192 << 10

// uplinks returns the devices of the node's default routes of a family. IPv4
// routes come in the order of their address, 0.0.0.0 first, so the cost does
// not grow with the number of routes; IPv6 default routes come last.
func uplinks(family int) ([]netlink.Link, error) {
	indexes := map[int]bool{}
	err := nlink.EachRoute(nlink.RouteFilter{Family: family}, func(r nlink.Route) bool {
		if r.Dst.Bits() == 0 && r.Device != 0 {
			indexes[r.Device] = true
		}
		return family == unix.AF_INET6 || r.Dst.Addr().IsUnspecified()
	})
	if err != nil {
		return nil, err
	}
	links := make([]netlink.Link, 0, len(indexes))
	for index := range indexes {
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			return nil, fmt.Errorf("read uplink %d: %w", index, err)
		}
		links = append(links, link)
	}
	return links, nil
}

// anyUplinks returns the IPv4 uplinks, or the IPv6 ones of a node without.
func anyUplinks() ([]netlink.Link, error) {
	links, err := uplinks(unix.AF_INET)
	if err != nil || len(links) > 0 {
		return links, err
	}
	return uplinks(unix.AF_INET6)
}

// deviceLimits resolves MTU and offload size of a pair against the uplinks.
// An offload size of 0 means the kernel's own.
func deviceLimits(p Pair) (mtu int, offload uint32, err error) {
	mtu = p.MTU
	if mtu != 0 && p.BigTCP != BigTCPAuto {
		return mtu, offloadSize(p.BigTCP == BigTCPOn), nil
	}
	links, err := anyUplinks()
	if err != nil {
		return 0, 0, err
	}
	big := p.BigTCP == BigTCPOn || p.BigTCP == BigTCPAuto && len(links) > 0
	least := defaultMTU
	for _, link := range links {
		attrs := link.Attrs()
		least = min(least, attrs.MTU)
		if p.BigTCP == BigTCPAuto && attrs.TSOMaxSize < bigTCPSize {
			big = false
		}
	}
	if mtu == 0 {
		mtu = least
	}
	return mtu, offloadSize(big), nil
}

func offloadSize(big bool) uint32 {
	if big {
		return bigTCPSize
	}
	return 0
}
