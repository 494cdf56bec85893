// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nlink"
)

// guardMetric is the worst metric, so that any other route to the subnet wins.
const guardMetric = math.MaxUint32

// enableForwarding switches on what routing needs in the node. For IPv4 the
// device's own switch is enough between endpoints, so ip_forward is only
// touched by a network with a gateway, as bridge does.
//
// The kernel stores the new value before it has the lock to switch the devices,
// and puts the old one back when it has to try again (devinet_sysctl_forward).
// Of two writers at a time each can then see the other's value as its own old
// one, and neither switches a device. So there is one writer at a time, and
// nobody reads meanwhile.
//
// To switch forwarding on sets the default of new devices as well, after the
// devices: a default that is on says that the switch is wholly on.
func enableForwarding(s *Spec) (err error) {
	has4, has6 := s.families()
	need4 := has4 && s.IsGateway && !sysctlIs("ipv4/conf/default/forwarding", "1")
	need6 := has6 && s.IsGateway && !sysctlIs("ipv6/conf/default/forwarding", "1")
	if has6 && !s.IsGateway {
		if err := forceForwarding(s.Device()); err != nil {
			return err
		}
	}
	if !need4 && !need6 {
		return nil
	}
	lock, err := lockFile("forwarding", true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if need4 {
		if err := enableForwarding4(); err != nil {
			return err
		}
	}
	if need6 {
		return ensureSysctl("ipv6/conf/all/forwarding", "1")
	}
	return nil
}

// forceForwarding lets an IPv6 network without a gateway forward between its
// endpoints and leaves the node's switch alone, which would make the node drop
// the default routes that it learned from router advertisements
// (rt6_purge_dflt_routers). Before Linux 6.17 there is no such switch, and
// such a network forwards only where the administrator has switched it on.
func forceForwarding(device string) error {
	err := writeSysctl("ipv6/conf/"+device+"/force_forwarding", "1")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// enableForwarding4 also completes a switch that others left half on.
func enableForwarding4() error {
	if err := ensureSysctl("ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if sysctlIs("ipv4/conf/default/forwarding", "1") {
		return nil
	}
	links, err := uplinks(unix.AF_INET)
	if err != nil {
		return err
	}
	for _, link := range links {
		if err := ensureSysctl("ipv4/conf/"+link.Attrs().Name+"/forwarding", "1"); err != nil {
			return err
		}
	}
	return nil
}

// claimAddresses makes the host routes and the neighbours. The
// route decides who has an address on this node: a second claim fails with
// an AddressInUseError.
func (e *Endpoint) claimAddresses(s *Spec) error {
	for _, a := range s.Addresses {
		if err := e.claim(a.Addr()); err != nil {
			return err
		}
	}
	return nil
}

func (e *Endpoint) claim(addr netip.Addr) error {
	if err := e.addHostRoute(addr); err != nil {
		return err
	}
	return e.setNeighbour(addr)
}

func (e *Endpoint) addHostRoute(addr netip.Addr) error {
	route := e.hostRoute(addr)
	err := netlink.RouteAdd(route)
	if errors.Is(err, unix.EEXIST) {
		return &AddressInUseError{Address: addr, Owner: routeOwner(route)}
	}
	if err != nil {
		return fmt.Errorf("add host route %s: %w", route.Dst, err)
	}
	return nil
}

func (e *Endpoint) setNeighbour(addr netip.Addr) error {
	if err := netlink.NeighSet(e.neighbour(addr)); err != nil {
		return fmt.Errorf("add neighbour %s: %w", addr, err)
	}
	return nil
}

func (e *Endpoint) hostRoute(addr netip.Addr) *netlink.Route {
	return &netlink.Route{
		LinkIndex: e.Index,
		Dst:       ipNet(netip.PrefixFrom(addr, addr.BitLen())),
		Scope:     unix.RT_SCOPE_LINK,
		Protocol:  RouteProtocol,
	}
}

// neighbour is known from the start, so the first packet waits for no ARP. It
// is bound to the device, so an address that is used again can never meet the
// MAC of the container that had it before. It is not permanent: a chained
// plugin (tuning) may change the container's MAC after us, and ARP then
// corrects the entry. NTF_EXT_LEARNED keeps it out of the garbage collection
// and its limit of 1,024 neighbours (neigh_alloc, gc_thresh3).
func (e *Endpoint) neighbour(addr netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: e.Index, Family: familyOf(addr), State: unix.NUD_REACHABLE, Flags: unix.NTF_EXT_LEARNED,
		IP: ipOf(addr), HardwareAddr: e.MAC,
	}
}

// routeOwner names the device that has the route to an address, for people.
func routeOwner(route *netlink.Route) string {
	routes, err := netlink.RouteGet(route.Dst.IP)
	if err != nil || len(routes) == 0 {
		return "another route of this node"
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "another route of this node"
	}
	if alias := link.Attrs().Alias; alias != "" {
		return fmt.Sprintf("device %s (%s)", link.Attrs().Name, alias)
	}
	return "device " + link.Attrs().Name
}

// addGateways puts each gateway address, as /32 or /128, on the host veth:
// the kernel then answers for it natively, and it goes when the device goes.
// For IPv6 the device also gets the link-local address that the container's
// subnet route points to.
func (e *Endpoint) addGateways(s *Spec) error {
	if _, has6 := s.families(); has6 {
		if err := e.addLinkLocal(); err != nil {
			return err
		}
	}
	for _, gw := range s.gateways() {
		addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(gw, gw.BitLen()))}
		if gw.Is6() {
			addr.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
		}
		if err := e.addAddress(addr); err != nil {
			return err
		}
	}
	return nil
}

func (e *Endpoint) addLinkLocal() error {
	if err := ensureSysctl("ipv6/conf/"+e.Device()+"/disable_ipv6", "0"); err != nil {
		return err
	}
	return e.addAddress(&netlink.Addr{IPNet: ipNet(netip.PrefixFrom(linkLocal(e.HostMAC), 64)), Flags: unix.IFA_F_NODAD})
}

func (e *Endpoint) addAddress(addr *netlink.Addr) error {
	err := netlink.AddrAdd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: e.Index}}, addr)
	if err != nil {
		return fmt.Errorf("add address %s to %s: %w", addr.IPNet, e.Device(), err)
	}
	return nil
}

// gateways returns the distinct gateway addresses that the host veth holds.
func (s *Spec) gateways() []netip.Addr {
	if !s.IsGateway {
		return nil
	}
	var gateways []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, a := range s.Addresses {
		if a.Gateway.IsValid() && !seen[a.Gateway] {
			seen[a.Gateway] = true
			gateways = append(gateways, a.Gateway)
		}
	}
	return gateways
}

// guard makes the unreachable routes that keep addresses which nobody leases
// from leaking to the default route.
func guard(s *Spec) error {
	for _, a := range s.Addresses {
		if a.Subnet().IsSingleIP() {
			continue
		}
		err := netlink.RouteAdd(guardRoute(a.Subnet()))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add subnet guard %s: %w", a.Subnet(), err)
		}
	}
	return nil
}

func guardRoute(subnet netip.Prefix) *netlink.Route {
	return &netlink.Route{Dst: ipNet(subnet), Type: unix.RTN_UNREACHABLE, Priority: guardMetric, Protocol: RouteProtocol}
}

func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// guardedSubnets returns the subnets that have a guard route.
func guardedSubnets(family int) ([]netip.Prefix, error) {
	var subnets []netip.Prefix
	err := nlink.EachRoute(nlink.RouteFilter{Family: family, Protocol: RouteProtocol}, func(r nlink.Route) bool {
		if r.Type == unix.RTN_UNREACHABLE {
			subnets = append(subnets, r.Dst)
		}
		return true
	})
	return subnets, err
}
