// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nlink"
)

// subnetRouteMetric ranks the IPv6 subnet route through the node before the
// kernel's own connected route (metric 256).
const subnetRouteMetric = 128

// How long duplicate address detection may take, and how often to look, as
// the bridge plugin does.
const (
	dadTimeout = 5 * time.Second
	dadPoll    = 50 * time.Millisecond
)

var (
	errDuplicate = errors.New("duplicate address detected")
	errTentative = errors.New("duplicate address detection did not end in time")
)

// configureContainer addresses the container's end and brings it up.
func (e *Endpoint) configureContainer(s *Spec) error {
	return e.netns.Do(func(ns.NetNS) error {
		link, err := netlink.LinkByName(e.IfName)
		if err != nil {
			return fmt.Errorf("read %s in the container: %w", e.IfName, err)
		}
		index := link.Attrs().Index
		if err := containerSysctls(s); err != nil {
			return err
		}
		for _, a := range s.Addresses {
			if err := addContainerAddress(link, a, s.DAD); err != nil {
				return err
			}
		}
		// arp_notify as bridge sets it.
		up := nlink.LinkChange{Up: true, Conf4: map[int]uint32{nlink.ConfARPNotify: 1}}
		if err := nlink.SetLink(index, up); err != nil {
			return err
		}
		if err := e.setOffload(index); err != nil {
			return err
		}
		if _, has6 := s.families(); has6 && s.DAD {
			if err := settleAddresses(link); err != nil {
				return err
			}
		}
		if err := e.containerRoutes(s, index); err != nil {
			return err
		}
		return waitUp(index)
	})
}

func containerSysctls(s *Spec) error {
	if !s.haveIPv6() {
		return nil
	}
	conf := "ipv6/conf/" + s.IfName
	values := map[string]string{"accept_dad": "0"}
	if s.DAD {
		values = map[string]string{"accept_dad": "1", "enhanced_dad": "1"}
	}
	if _, has6 := s.families(); has6 {
		for _, name := range []string{"ipv6/conf/lo/disable_ipv6", conf + "/disable_ipv6"} {
			if err := ensureSysctl(name, "0"); err != nil {
				return err
			}
		}
		values["keep_addr_on_down"] = "1"
		// What arp_notify is for IPv4: the node learns a MAC that a chained plugin
		// (tuning) changes, instead of using the old one until it is found dead.
		values["ndisc_notify"] = "1"
	}
	return writeSysctls(conf, values)
}

func addContainerAddress(link netlink.Link, a Address, dad bool) error {
	addr := &netlink.Addr{IPNet: ipNet(a.Prefix)}
	if a.Addr().Is6() && !dad {
		// The lease makes the address unique, and probing costs a second.
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return &ConfigError{Key: "ipam", Value: a.Prefix.String(), Err: fmt.Errorf("add address to %s: %w", link.Attrs().Name, err)}
	}
	return nil
}

// settleAddresses waits for the end of duplicate address detection.
func settleAddresses(link netlink.Link) error {
	for deadline := time.Now().Add(dadTimeout); ; time.Sleep(dadPoll) {
		addrs, err := netlinksafe.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
		}
		tentative := ""
		for _, a := range addrs {
			switch {
			case a.Flags&unix.IFA_F_DADFAILED != 0:
				return &ConfigError{Key: "ipam", Value: a.IPNet.String(), Err: errDuplicate}
			case a.Flags&unix.IFA_F_TENTATIVE != 0:
				tentative = a.IPNet.String()
			}
		}
		if tentative == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return &ConfigError{Key: "ipam", Value: tentative, Err: errTentative}
		}
	}
}

// containerRoutes makes the configured routes, each through the first
// gateway of its family where it names none, and for IPv6 the subnet through
// the node. There is no proxy ND for a whole subnet, so without that route a
// neighbour would only be found while eBPF answers for it.
func (e *Endpoint) containerRoutes(s *Spec, index int) error {
	for _, r := range s.Routes {
		route := &netlink.Route{
			LinkIndex: index, Dst: ipNet(r.Dst), Gw: ipOf(s.gatewayFor(r)),
			MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority,
		}
		if r.Table != nil {
			route.Table = *r.Table
		}
		if r.Scope != nil {
			route.Scope = netlink.Scope(*r.Scope)
		}
		if err := netlink.RouteAdd(route); err != nil {
			return &ConfigError{Key: "routes", Value: routeText(r, s.gatewayFor(r)), Err: fmt.Errorf("add route in the container: %w", err)}
		}
	}
	for _, r := range s.subnetRoutes(e.HostMAC) {
		route := &netlink.Route{
			LinkIndex: index, Dst: ipNet(r.Dst), Gw: ipOf(r.Gateway), Priority: r.Priority, Protocol: RouteProtocol,
		}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("add subnet route %s in the container: %w", routeText(r, r.Gateway), err)
		}
	}
	return nil
}

// subnetRoutes lists the routes that lead an IPv6 subnet through the node. Its
// gateway stays on link: the kernel takes no next hop that is reached through
// another (ip6_route_check_nh), so nobody could add a route through it later.
func (s *Spec) subnetRoutes(hostMAC net.HardwareAddr) []Route {
	var routes []Route
	seen := map[netip.Prefix]bool{}
	add := func(r Route) {
		if !seen[r.Dst] {
			seen[r.Dst] = true
			routes = append(routes, r)
		}
	}
	for _, a := range s.Addresses {
		subnet := a.Subnet()
		if a.Addr().Is4() || subnet.IsSingleIP() {
			continue
		}
		add(Route{Dst: subnet, Gateway: linkLocal(hostMAC), Priority: subnetRouteMetric})
		if a.Gateway.IsValid() && subnet.Contains(a.Gateway) {
			add(Route{Dst: netip.PrefixFrom(a.Gateway, a.Gateway.BitLen()), Priority: subnetRouteMetric})
		}
	}
	return routes
}

// gatewayFor returns the gateway that a route goes through, invalid for on link.
func (s *Spec) gatewayFor(r Route) netip.Addr {
	if r.Gateway.IsValid() {
		return r.Gateway
	}
	for _, a := range s.Addresses {
		if a.Gateway.IsValid() && a.Gateway.Is4() == r.Dst.Addr().Is4() {
			return a.Gateway
		}
	}
	return netip.Addr{}
}

func routeText(r Route, gw netip.Addr) string {
	if !gw.IsValid() {
		return r.Dst.String()
	}
	return r.Dst.String() + " via " + gw.String()
}

// linkLocal returns the IPv6 link-local address of a MAC (RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 8: mac[0] ^ 0x02, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}

func ipOf(addr netip.Addr) net.IP {
	if !addr.IsValid() {
		return nil
	}
	return net.IP(addr.AsSlice())
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: ipOf(p.Addr()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
