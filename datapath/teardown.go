// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath/conntrack"
	"github.com/zipline-cni/zipline/datapath/nat"
	"github.com/zipline-cni/zipline/internal/nlink"
	"github.com/zipline-cni/zipline/internal/rcu"
	"github.com/zipline-cni/zipline/loader"
)

// Hints help a removal to find what the kernel can no longer tell because
// the device is gone (a runtime deletes the namespace first). They are never
// believed: what belongs to another attachment is left alone.
type Hints struct {
	Addresses []netip.Addr   // from the lease or from prevResult
	Subnets   []netip.Prefix // of the network, as configured or from prevResult
	// Leases says that Addresses holds all leases of the attachment. Without
	// it, an attachment whose device is gone is looked for in the ruleset.
	Leases bool
}

// Remove removes everything of the attachment that it finds by name: the map
// entries, the device with its routes, addresses and programs, the elements of
// the ruleset, conntrack entries, and what the subnet has once when this was its
// last endpoint. What is gone already is no error. It goes on after an error and
// returns all of them joined; only where the device stays, its elements stay, too.
//
// release (nil for none) gives the addresses back. It is called last, when nothing
// of the attachment is left to be seen, and never after an error.
func Remove(a Attachment, hints Hints, release func() error) error {
	return remove(a.owner(), hints, release)
}

func remove(owner nat.Owner, hints Hints, release func() error) error {
	var errs []error
	index, err := deviceIndex(owner.Device)
	if err != nil {
		return err
	}
	held, err := heldAddresses(owner, index, hints)
	errs = append(errs, err)
	addresses := sortedAddrs(append(held, hints.Addresses...))
	node, err := publishedMaps(index)
	// First, so that nothing is sent to a device that goes.
	errs = append(errs, err, unpublish(node, index, owner.Device, addresses))
	device, elements := make(chan error, 1), make(chan error, 1)
	go func() { elements <- takeDown(owner, index, addresses, device) }()
	errs = append(errs, leaveMaps(node), <-device)
	freed, err := unclaimed(addresses)
	errs = append(errs, err)
	_, err = conntrack.DeleteAddresses(freed...)
	errs = append(errs, err, <-elements, releaseSubnets(freed, hints.Subnets))
	if release != nil && errors.Join(errs...) == nil {
		errs = append(errs, release())
	}
	return errors.Join(errs...)
}

// takeDown deletes the device, sends how that went, and removes the elements. They go
// after the device, so that nothing of the container's leaves untranslated, and stay
// where it does, for the next removal. Both wait for grace periods, holding locks that
// other removals want; with neither device nor addresses there is none to shorten.
func takeDown(owner nat.Owner, index int, addresses []netip.Addr, device chan<- error) error {
	both := func() error {
		err := deleteDevice(index)
		device <- err
		if err != nil {
			return nil // it was sent
		}
		return removeElements(owner, addresses)
	}
	if index == 0 && len(addresses) == 0 {
		rcu.Settle() // a removal may have been killed
		return both()
	}
	return rcu.Expedite(both)
}

// deleteDevice deletes a device; 0 is none, and one that is gone already no error.
func deleteDevice(index int) error {
	if index == 0 {
		return nil
	}
	if err := nlink.DeleteLink(index); !isNotFound(err) {
		return err
	}
	return nil
}

// deviceIndex returns the ifindex of a device, 0 when there is none.
func deviceIndex(name string) (int, error) {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read device %s: %w", name, err)
	}
	return link.Attrs().Index, nil
}

// heldAddresses returns the addresses of an attachment as the kernel knows
// them: by the routes of its device, or by the owner of the ruleset's elements.
func heldAddresses(owner nat.Owner, index int, hints Hints) ([]netip.Addr, error) {
	if index != 0 {
		return addressesOf(index)
	}
	if hints.Leases {
		return nil, nil
	}
	var held []netip.Addr
	err := withRuleset(func(rules *nat.Ruleset) (err error) {
		held, err = rules.Addresses(func(o nat.Owner) bool { return o.Device == owner.Device })
		return err
	})
	return held, err
}

// withRuleset opens the ruleset for f.
func withRuleset(f func(*nat.Ruleset) error) (err error) {
	rules, err := nat.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rules.Close()) }()
	return f(rules)
}

// addressesOf returns the addresses that are routed to a device by us.
func addressesOf(index int) ([]netip.Addr, error) {
	var addresses []netip.Addr
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		filter := nlink.RouteFilter{Family: family, Device: index, Protocol: RouteProtocol}
		err := nlink.EachRoute(filter, func(r nlink.Route) bool {
			if r.Dst.IsSingleIP() {
				addresses = append(addresses, r.Dst.Addr())
			}
			return true
		})
		// The device may go at any moment, with its container's namespace.
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return addresses, err
		}
	}
	return addresses, nil
}

// publishedMaps opens the maps that the device may have entries in; nil where
// there are none. Without pins they are found by the device's own programs.
func publishedMaps(index int) (*loader.Node, error) {
	if index == 0 && !loader.Recorded() {
		return nil, nil
	}
	node, err := loader.Find(index)
	if errors.Is(err, loader.ErrNotLoaded) {
		return nil, nil
	}
	return node, err
}

// unpublish takes the addresses out of the endpoints map where the entry is
// the device's, or that of a device which is gone.
func unpublish(node *loader.Node, index int, device string, addresses []netip.Addr) error {
	if node == nil {
		return nil
	}
	var errs []error
	for _, addr := range addresses {
		ep, err := node.Lookup(addr)
		if errors.Is(err, loader.ErrNotFound) {
			continue
		}
		if err == nil && ep.IfIndex != index && !isDevice(ep.IfIndex, device) {
			continue
		}
		if err == nil {
			err = node.Delete(addr, ep.IfIndex)
		}
		if err == nil && ep.IfIndex != index {
			err = node.Forget(ep.IfIndex)
		}
		errs = append(errs, err)
	}
	if index != 0 {
		errs = append(errs, node.Forget(index))
	}
	return errors.Join(errs...)
}

// leaveMaps takes the programs off the uplinks when no endpoint is left.
func leaveMaps(node *loader.Node) error {
	if node == nil {
		return nil
	}
	return errors.Join(node.ReleaseUplinks(), node.Close())
}

// isDevice says whether the index is this device's or nobody's any more.
func isDevice(index int, name string) bool {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return isNotFound(err)
	}
	return link.Attrs().Name == name
}

func removeElements(owner nat.Owner, addresses []netip.Addr) error {
	return withRuleset(func(rules *nat.Ruleset) error { return rules.Remove(owner, addresses) })
}

// unclaimed returns those addresses that no endpoint of this node has (now
// that the device is gone): a hint may be old, and its address in use again.
func unclaimed(addresses []netip.Addr) ([]netip.Addr, error) {
	var freed []netip.Addr
	for _, addr := range addresses {
		claimed, err := isClaimed(addr)
		if err != nil {
			return freed, err
		}
		if !claimed {
			freed = append(freed, addr)
		}
	}
	return freed, nil
}

// isUnreachable says whether the kernel answered that it has no way to an
// address: the subnet guard, a prohibiting route, or no route at all.
func isUnreachable(err error) bool {
	return errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)
}

func isClaimed(addr netip.Addr) (bool, error) {
	route, err := routeTo(addr)
	return route != nil && isClaim(route), err
}

// isClaim says whether a route is an endpoint's to one of its addresses.
func isClaim(route *netlink.Route) bool {
	return route.Protocol == RouteProtocol && route.Type == unix.RTN_UNICAST
}

// routeTo returns the node's route to an address, nil where it has none.
func routeTo(addr netip.Addr) (*netlink.Route, error) {
	routes, err := netlink.RouteGetWithOptions(ipOf(addr), &netlink.RouteGetOptions{FIBMatch: true})
	if err != nil && !isUnreachable(err) {
		return nil, fmt.Errorf("look up route to %s: %w", addr, err)
	}
	if err != nil || len(routes) == 0 {
		return nil, nil
	}
	return &routes[0], nil
}

// releaseSubnets removes what the subnets of the freed addresses have once,
// where no endpoint of the subnet is left.
func releaseSubnets(freed []netip.Addr, known []netip.Prefix) error {
	var errs []error
	var subnets []netip.Prefix
	for _, addr := range freed {
		subnet, err := subnetOf(addr, known)
		errs = append(errs, err)
		if subnet.IsValid() {
			subnets = append(subnets, subnet)
		}
	}
	for _, subnet := range sortedPrefixes(subnets) {
		errs = append(errs, releaseSubnet(subnet))
	}
	return errors.Join(errs...)
}

// subnetOf finds the subnet of an address, the smallest one, among the known
// ones or, when the caller knew none, among the guard routes of the node.
func subnetOf(addr netip.Addr, known []netip.Prefix) (netip.Prefix, error) {
	if found := smallest(known, addr); found.IsValid() {
		return found.Masked(), nil
	}
	guards, err := guardedSubnets(familyOf(addr))
	return smallest(guards, addr).Masked(), err
}

// releaseSubnet removes what a subnet has once, unless an endpoint is left. The
// guard route goes last, so that it marks a subnet with something left. Of
// several removals at a time each comes here after its own elements are gone,
// so the last one finds none.
func releaseSubnet(subnet netip.Prefix) (err error) {
	lock, err := lockSubnet(subnet, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	used, err := subnetInUse(subnet)
	if err != nil || used {
		return err
	}
	if err := removeSubnetElements(subnet); err != nil {
		return err
	}
	err = netlink.RouteDel(guardRoute(subnet))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete subnet guard %s: %w", subnet, err)
	}
	return nil
}

func removeSubnetElements(subnet netip.Prefix) error {
	return rcu.Expedite(func() error {
		return withRuleset(func(rules *nat.Ruleset) error { return rules.RemoveNetwork([]netip.Prefix{subnet}) })
	})
}

// subnetInUse looks for the first host route of ours in the subnet.
func subnetInUse(subnet netip.Prefix) (bool, error) {
	used := false
	filter := nlink.RouteFilter{Family: familyOf(subnet.Addr()), Protocol: RouteProtocol}
	err := nlink.EachRoute(filter, func(r nlink.Route) bool {
		used = r.Dst.IsSingleIP() && r.Type == unix.RTN_UNICAST && subnet.Contains(r.Dst.Addr())
		return !used
	})
	return used, err
}

func sortedAddrs(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

func sortedPrefixes(prefixes []netip.Prefix) []netip.Prefix {
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(prefixes)
}
