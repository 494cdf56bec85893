// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

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

// uplink is a device by which the node reaches others.
type uplink struct {
	netlink.Link
	// routeMTU is the least MTU of its default routes themselves; 0 = none.
	routeMTU uint32
}

// defaultRoutes remembers what [uplinks] found: ADD asks for the size of its
// devices and again for the uplinks themselves.
var defaultRoutes = map[int]func() ([]uplink, error){
	unix.AF_INET:  sync.OnceValues(func() ([]uplink, error) { return readUplinks(unix.AF_INET) }),
	unix.AF_INET6: sync.OnceValues(func() ([]uplink, error) { return readUplinks(unix.AF_INET6) }),
}

// uplinks returns the devices of the node's default routes of a family, as the
// process found them first.
func uplinks(family int) ([]uplink, error) { return defaultRoutes[family]() }

// readUplinks reads the devices of the node's default routes of a family. IPv4
// routes come in the order of their address, 0.0.0.0 first, so the cost does
// not grow with the number of routes; IPv6 default routes come last.
func readUplinks(family int) ([]uplink, error) {
	mtus := map[int]uint32{} // device → least MTU of a route
	err := nlink.EachRoute(nlink.RouteFilter{Family: family}, func(r nlink.Route) bool {
		if r.Dst.Bits() != 0 {
			return family == unix.AF_INET6 || r.Dst.Addr().IsUnspecified()
		}
		for _, index := range append(r.NextHops, r.Device) {
			if index != 0 {
				mtus[index] = leastMTU(mtus[index], r.MTU)
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	found := make([]uplink, 0, len(mtus))
	for index, mtu := range mtus {
		link, err := netlink.LinkByIndex(index)
		if isNotFound(err) {
			continue // gone since, and its routes with it
		}
		if err != nil {
			return nil, fmt.Errorf("read uplink %d: %w", index, err)
		}
		found = append(found, uplink{link, mtu})
	}
	return found, nil
}

// leastMTU returns the smaller of two, of which 0 is none.
func leastMTU(a, b uint32) uint32 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// uplinks returns the uplinks of the endpoint as they are now, by index, with
// the route MTU of each. A name without a device is none: a tunnel may come later.
func (s *Spec) uplinks() (map[int]uint32, error) {
	defaults, err := s.defaultUplinks()
	if err != nil {
		return nil, err
	}
	links := defaults
	if len(s.Uplinks) > 0 {
		if links, err = s.namedUplinks(); err != nil {
			return nil, err
		}
	}
	found := map[int]uint32{}
	for _, l := range links {
		if isUplink(l) {
			found[l.Attrs().Index] = leastMTU(found[l.Attrs().Index], l.routeMTU)
		}
	}
	for _, l := range defaults {
		if mtu, used := found[l.Attrs().Index]; used {
			found[l.Attrs().Index] = leastMTU(mtu, l.routeMTU)
		}
	}
	return found, nil
}

// isUplink says whether the programs understand what a device carries: Ethernet
// frames that are not our own endpoints'.
func isUplink(link netlink.Link) bool {
	attrs := link.Attrs()
	return attrs.EncapType == "ether" && !isOurs(attrs)
}

func (s *Spec) defaultUplinks() ([]uplink, error) {
	has4, has6 := s.families()
	var links []uplink
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
func (s *Spec) namedUplinks() ([]uplink, error) {
	var links []uplink
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
		links = append(links, uplink{Link: link})
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
			links = append(links, uplink{Link: link})
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
func anyUplinks() ([]uplink, error) {
	links, err := uplinks(unix.AF_INET)
	if err != nil || len(links) > 0 {
		return links, err
	}
	return uplinks(unix.AF_INET6)
}

// legacyOffload is the largest packet without BIG TCP (GSO_LEGACY_MAX_SIZE).
const legacyOffload = 64 << 10

// deviceLimits resolves MTU and offload size of a pair against the uplinks.
// An offload size of 0 means the kernel's own.
func deviceLimits(p Pair) (mtu int, offload uint32, err error) {
	if p.BigTCP == BigTCPOn {
		offload = bigTCPSize
	}
	if p.MTU != 0 && p.BigTCP != BigTCPAuto {
		return p.MTU, offload, nil
	}
	links, err := anyUplinks()
	if err != nil {
		return 0, 0, err
	}
	mtu = p.MTU
	if mtu == 0 {
		mtu = defaultMTU
		for _, link := range links {
			mtu = min(mtu, link.Attrs().MTU)
		}
	}
	if p.BigTCP == BigTCPAuto {
		offload = commonOffload(links)
	}
	return mtu, offload, nil
}

// commonOffload returns the largest packet that every uplink is set to take, 0
// where that is not BIG TCP. What a device could take (tso_max_size) does not
// count: a packet above what it is set to take is segmented in software there
// (gso_features_check), which costs far more than large packets gain.
func commonOffload(links []uplink) uint32 {
	least := uint32(bigTCPSize)
	for _, link := range links {
		least = min(least, link.Attrs().GSOIPv4MaxSize)
	}
	if len(links) == 0 || least <= legacyOffload {
		return 0
	}
	return least
}
