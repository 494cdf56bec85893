// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
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

// uplinkIndexes returns the devices that the endpoint's uplinks are now. A name
// without a device is none: a tunnel may come later.
func (s *Spec) uplinkIndexes() ([]int, error) {
	links, err := s.namedUplinks()
	if len(s.Uplinks) == 0 {
		links, err = s.defaultUplinks()
	}
	var indexes []int
	for _, link := range links {
		if isUplink(link) {
			indexes = append(indexes, link.Attrs().Index)
		}
	}
	slices.Sort(indexes)
	return slices.Compact(indexes), err
}

// isUplink says whether the programs understand what a device carries: Ethernet
// frames that are not our own endpoints'.
func isUplink(link netlink.Link) bool {
	attrs := link.Attrs()
	return attrs.EncapType == "ether" && !isOurs(attrs)
}

func (s *Spec) defaultUplinks() ([]netlink.Link, error) {
	has4, has6 := s.families()
	var links []netlink.Link
	var errs []error
	for family, wanted := range map[int]bool{unix.AF_INET: has4, unix.AF_INET6: has6} {
		if !wanted {
			continue
		}
		found, err := uplinks(family)
		links, errs = append(links, found...), append(errs, err)
	}
	return links, errors.Join(errs...)
}

// namedUplinks only lists the node's devices where a glob has to be compared
// with all of them.
func (s *Spec) namedUplinks() ([]netlink.Link, error) {
	var links []netlink.Link
	var globs []string
	for _, name := range s.Uplinks {
		if strings.ContainsAny(name, `*?[\`) {
			globs = append(globs, name)
			continue
		}
		link, err := netlink.LinkByName(name)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read uplink %s: %w", name, err)
		}
		links = append(links, link)
	}
	if len(globs) == 0 {
		return links, nil
	}
	all, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	for _, link := range all {
		if matchesAny(globs, link.Attrs().Name) {
			links = append(links, link)
		}
	}
	return links, nil
}

func matchesAny(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool {
		ok, err := path.Match(glob, name)
		return ok && err == nil
	})
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
