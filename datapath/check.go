// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath/nat"
)

// checker collects findings about one endpoint.
type checker struct {
	spec     *Spec
	netns    ns.NetNS
	host     netlink.Link
	findings []Finding
}

func (c *checker) find(object, mend, format string, args ...any) {
	c.findings = append(c.findings, Finding{Object: object, Wrong: fmt.Sprintf(format, args...), Mend: mend})
}

// dumpTries is how often a list that changed meanwhile is read again.
const dumpTries = 5

// readd is how to mend what only ADD makes.
const readd = "DEL and ADD the container"

// Check compares the endpoint with its spec and returns what is wrong with
// it. The error is for what could not be examined.
//
// It returns ErrNetns or ErrOwnNetns (wrapped) for a namespace that cannot be
// the container's.
func Check(s *Spec) (findings []Finding, err error) {
	netns, err := openNetns(s.Netns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, netns.Close()) }()
	c := &checker{spec: s, netns: netns}
	host, err := netlink.LinkByName(s.Device())
	if isNotFound(err) {
		c.find("device "+s.Device(), readd, "is missing, and with it %s in the container", s.IfName)
		return c.findings, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read device %s: %w", s.Device(), err)
	}
	c.host = host
	for _, check := range []func() error{
		c.checkHostDevice, c.checkContainer, c.checkHostAddresses, c.checkHostRoutes, c.checkSwitches, c.checkRuleset, c.checkPrograms,
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return c.findings, nil
}

func (c *checker) checkHostDevice() error {
	attrs, s := c.host.Attrs(), c.spec
	object := "device " + s.Device()
	group := uint32(Group)
	if !s.SourceCheck {
		group = GroupUnchecked
	}
	if attrs.RawFlags&ifUp == 0 {
		c.find(object, "ip link set "+s.Device()+" up", "is down")
	}
	if s.MTU != 0 && attrs.MTU != s.MTU {
		c.find(object, fmt.Sprintf("ip link set %s mtu %d", s.Device(), s.MTU), "has MTU %d, not %d", attrs.MTU, s.MTU)
	}
	if attrs.Group != group {
		c.find(object, fmt.Sprintf("ip link set %s group %d", s.Device(), group), "is in link group %d, not %d", attrs.Group, group)
	}
	if attrs.Alias != s.alias() {
		c.find(object, readd, "has the alias %q, not %q", attrs.Alias, s.alias())
	}
	if attrs.HardwareAddr.String() != s.hostMAC().String() {
		c.find(object, fmt.Sprintf("ip link set %s address %s", s.Device(), s.hostMAC()), "has MAC %s, not %s", attrs.HardwareAddr, s.hostMAC())
	}
	return nil
}

// checkHostAddresses looks for the gateway and link-local addresses.
func (c *checker) checkHostAddresses() error {
	want := map[netip.Addr]string{}
	for _, gw := range c.spec.gateways() {
		want[gw] = "gateway address "
	}
	if _, has6 := c.spec.families(); has6 {
		want[linkLocal(c.spec.hostMAC())] = "link-local address "
	}
	have, err := addrsOf(c.host)
	if err != nil {
		return err
	}
	for addr, kind := range want {
		if !have[addr] {
			c.find(kind+addr.String(), fmt.Sprintf("ip addr add %s dev %s", addr, c.spec.Device()), "is missing on %s", c.spec.Device())
		}
	}
	return nil
}

// checkHostRoutes looks for the route and the neighbour of every address,
// and for the guard of every subnet.
func (c *checker) checkHostRoutes() error {
	index := c.host.Attrs().Index
	held, err := addressesOf(index)
	if err != nil {
		return err
	}
	routed := map[netip.Addr]bool{}
	for _, addr := range held {
		routed[addr] = true
	}
	for _, a := range c.spec.Addresses {
		if !routed[a.Addr()] {
			c.find("route "+a.Addr().String(), fmt.Sprintf("ip route add %s dev %s proto %d", a.Addr(), c.spec.Device(), RouteProtocol), "is missing on the node")
		}
		if err := c.checkNeighbour(index, a.Addr()); err != nil {
			return err
		}
	}
	return c.checkGuards()
}

// checkNeighbour finds an entry that sends packets to another MAC, or that
// failed. One that is missing is not damage: ARP or ND brings it back with the
// next packet, which is also how a MAC that a chained plugin changes is learned.
func (c *checker) checkNeighbour(index int, addr netip.Addr) error {
	neighs, err := netlink.NeighList(index, familyOf(addr))
	for try := 0; errors.Is(err, netlink.ErrDumpInterrupted) && try < dumpTries; try++ {
		neighs, err = netlink.NeighList(index, familyOf(addr))
	}
	if err != nil {
		return fmt.Errorf("list neighbours of %s: %w", c.spec.Device(), err)
	}
	object := "neighbour " + addr.String()
	mend := fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud reachable extern_learn", addr, c.spec.MAC, c.spec.Device())
	for _, n := range neighs {
		switch {
		case !n.IP.Equal(ipOf(addr)) || n.State == unix.NUD_INCOMPLETE:
		case n.State&unix.NUD_FAILED != 0:
			c.find(object, mend, "the container does not answer for it")
		case n.HardwareAddr.String() != c.spec.MAC.String():
			c.find(object, mend, "has MAC %s, not %s", n.HardwareAddr, c.spec.MAC)
		}
	}
	return nil
}

func (c *checker) checkGuards() error {
	for _, subnet := range c.spec.subnets() {
		if subnet.IsSingleIP() {
			continue
		}
		guards, err := guardedSubnets(familyOf(subnet.Addr()))
		if err != nil {
			return err
		}
		if !slices.Contains(guards, subnet) {
			c.find("route "+subnet.String(), fmt.Sprintf("ip route add unreachable %s metric %d proto %d", subnet, uint32(guardMetric), RouteProtocol),
				"the subnet guard is missing: packets to addresses that nobody leases leak")
		}
	}
	return nil
}

// switches returns the sysctls without which nothing is forwarded.
func (s *Spec) switches() (map[string]string, error) {
	has4, has6 := s.families()
	want := map[string]string{}
	if has4 {
		want["ipv4/conf/"+s.Device()+"/forwarding"] = "1"
		want["ipv4/conf/"+s.Device()+"/proxy_arp"] = "1"
	}
	if has4 && s.IsGateway {
		want["ipv4/ip_forward"] = "1"
		links, err := uplinks(unix.AF_INET)
		if err != nil {
			return nil, err
		}
		for _, link := range links {
			want["ipv4/conf/"+link.Attrs().Name+"/forwarding"] = "1"
		}
	}
	if has6 && s.IsGateway {
		want["ipv6/conf/all/forwarding"] = "1"
	}
	return want, nil
}

// checkSwitches looks at the sysctls.
func (c *checker) checkSwitches() error {
	want, err := c.spec.switches()
	if err != nil {
		return err
	}
	for name, value := range want {
		have, err := readSysctl(name)
		if err != nil {
			return err
		}
		if have != value {
			c.find("sysctl net/"+name, "sysctl -w net/"+name+"="+value, "is %s, not %s: forwarding is switched off", have, value)
		}
	}
	return nil
}

// checkRuleset asks the ruleset about the elements and its own rules.
func (c *checker) checkRuleset() (err error) {
	rules, err := nat.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rules.Close()) }()
	err = rules.Check(c.spec.owner(), c.spec.sources(), c.spec.natOptions())
	var wrong *nat.CheckError
	if !errors.As(err, &wrong) {
		return err
	}
	for _, p := range wrong.Problems {
		c.find(p.Object, p.Mend, "%s", p.Wrong)
	}
	return nil
}

func addrsOf(link netlink.Link) (map[netip.Addr]bool, error) {
	list, err := netlinksafe.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	have := map[netip.Addr]bool{}
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			have[addr.Unmap()] = true
		}
	}
	return have, nil
}
