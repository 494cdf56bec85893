// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const ifUp = uint32(net.FlagUp)

// tuningBackups is where the chained tuning plugin notes that it changed a
// container's device (its dataDir by default).
const tuningBackups = "/run/cni/tuning"

// checkContainer looks at the container's end from within its namespace.
func (c *checker) checkContainer() error {
	return c.netns.Do(func(ns.NetNS) error { return c.checkInside() })
}

func (c *checker) checkInside() error {
	object := c.spec.IfName + " in the container"
	link, err := netlink.LinkByName(c.spec.IfName)
	if isNotFound(err) {
		c.find(object, readd, "is missing")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", object, err)
	}
	attrs := link.Attrs()
	if attrs.ParentIndex != c.host.Attrs().Index || link.Type() != "veth" {
		c.find(object, readd, "is not the other end of %s", c.spec.Device())
	}
	if attrs.RawFlags&ifUp == 0 {
		c.find(object, "ip link set "+c.spec.IfName+" up, then add its routes again", "is down")
	}
	if c.spec.MAC == nil || attrs.HardwareAddr.String() != c.spec.MAC.String() {
		c.find(object, fmt.Sprintf("ip link set %s address %s", c.spec.IfName, c.spec.MAC), "has MAC %s, not %s", attrs.HardwareAddr, c.spec.MAC)
	}
	if want := c.host.Attrs().MTU; attrs.MTU != want && !c.tuned() {
		c.find("MTU of "+c.spec.IfName+" and "+c.spec.Device(), "set both to one value", "is %d in the container and %d on the node", attrs.MTU, want)
	}
	have, err := addrsOf(link)
	if err != nil {
		return err
	}
	for _, a := range c.spec.Addresses {
		if !have[a.Addr()] {
			c.find("address "+a.Prefix.String(), fmt.Sprintf("ip addr add %s dev %s", a.Prefix, c.spec.IfName), "is missing on %s", object)
		}
	}
	return c.checkInsideRoutes(attrs.Index)
}

// tuned says whether the tuning plugin has changed the container's device;
// the MTU may then be its own.
func (c *checker) tuned() bool {
	_, err := os.Stat(fmt.Sprintf("%s/%s_%s.json", tuningBackups, c.spec.ContainerID, c.spec.IfName))
	return err == nil
}

// checkInsideRoutes looks for every route in every table: the sbr plugin
// moves routes to tables of its own, which the specification allows.
func (c *checker) checkInsideRoutes(index int) error {
	filter := &netlink.Route{LinkIndex: index, Table: unix.RT_TABLE_UNSPEC}
	have, err := netlinksafe.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes in the container: %w", err)
	}
	for _, r := range c.insideRoutes() {
		if !hasRoute(have, r) {
			text := routeText(r, r.Gateway)
			c.find("route "+text+" in the container", fmt.Sprintf("ip route add %s dev %s", text, c.spec.IfName), "is missing")
		}
	}
	return nil
}

// insideRoutes lists what the container's tables must hold: the connected
// subnets, the configured routes, and the IPv6 subnets through the node.
func (c *checker) insideRoutes() []Route {
	var routes []Route
	for _, a := range c.spec.Addresses {
		if a.Subnet().IsSingleIP() {
			continue
		}
		routes = append(routes, Route{Dst: a.Subnet()})
	}
	routes = append(routes, c.spec.subnetRoutes(c.spec.hostMAC())...)
	for _, r := range c.spec.Routes {
		r.Gateway = c.spec.gatewayFor(r)
		routes = append(routes, r)
	}
	return routes
}

func hasRoute(have []netlink.Route, want Route) bool {
	for _, r := range have {
		dst, ok := prefixOf(r.Dst)
		gw, _ := netip.AddrFromSlice(r.Gw)
		if ok && dst == want.Dst && gw.Unmap() == want.Gateway {
			return true
		}
	}
	return false
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if bits == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, ones), ok
}
