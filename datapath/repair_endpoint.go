// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath/nat"
	"github.com/zipline-cni/zipline/internal/nlink"
	"github.com/zipline-cni/zipline/loader"
)

// repairer mends one endpoint, from the node's side.
type repairer struct {
	spec *Spec
	link netlink.Link
}

// findings lists what is wrong, in a fixed order. Unlike [Check] it changes
// nothing, does not look into the container, and wants neighbours to be there.
func (r *repairer) findings() ([]Finding, error) {
	c := &checker{spec: r.spec, host: r.link}
	checks := []func() error{c.checkHostDevice, func() error { return r.checkDeviceSwitches(c) }, c.checkHostAddresses,
		c.checkHostRoutes, func() error { return r.checkNeighbours(c) }, c.checkSwitches, c.checkRuleset, func() error { return r.checkMaps(c) }}
	for _, check := range checks {
		if err := check(); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int { return cmp.Compare(a.Object, b.Object) })
	return slices.CompactFunc(c.findings, func(a, b Finding) bool { return a.Object == b.Object && a.Wrong == b.Wrong }), nil
}

// deviceSwitches are the sysctls that ADD sets on a host veth besides those of
// [Spec.switches].
func (r *repairer) deviceSwitches() map[string]string {
	device := r.link.Attrs().Name
	want := map[string]string{"ipv4/neigh/" + device + "/proxy_delay": "0"}
	if r.spec.haveIPv6() {
		want["ipv6/conf/"+device+"/accept_ra"] = "0"
		want["ipv6/conf/"+device+"/accept_redirects"] = "0"
	}
	return want
}

func (r *repairer) checkDeviceSwitches(c *checker) error {
	for name, value := range r.deviceSwitches() {
		have, err := readSysctl(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if have != value {
			c.find("sysctl net/"+name, "sysctl -w net/"+name+"="+value, "is %s, not %s", have, value)
		}
	}
	return nil
}

// checkNeighbours finds those that are missing; checkHostRoutes finds wrong ones.
func (r *repairer) checkNeighbours(c *checker) error {
	index := r.link.Attrs().Index
	for _, a := range r.spec.Addresses {
		neighs, err := netlink.NeighList(index, familyOf(a.Addr()))
		for try := 0; errors.Is(err, netlink.ErrDumpInterrupted) && try < dumpTries; try++ {
			neighs, err = netlink.NeighList(index, familyOf(a.Addr()))
		}
		if err != nil {
			return fmt.Errorf("list neighbours of %s: %w", r.spec.Device(), err)
		}
		if !slices.ContainsFunc(neighs, func(n netlink.Neigh) bool { return n.IP.Equal(ipOf(a.Addr())) }) {
			c.find("neighbour "+a.Addr().String(), readd, "is missing")
		}
	}
	return nil
}

// checkMaps is checkPrograms that mends nothing.
func (r *repairer) checkMaps(c *checker) (err error) {
	if !r.spec.accelerated() {
		return nil
	}
	index := r.link.Attrs().Index
	node, err := loader.Find(index)
	if errors.Is(err, loader.ErrNotLoaded) {
		c.find("program on "+r.spec.Device(), "ziplinectl load", "is detached, and nothing is loaded")
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	if err := node.Attached(index); err != nil {
		c.find("program on "+r.spec.Device(), "ziplinectl attach "+r.spec.Device(), "%v", err)
	}
	want := (&Endpoint{Pair: r.spec.Pair, HostMAC: r.spec.hostMAC()})
	have, _, err := node.LookupDevice(index)
	switch {
	case errors.Is(err, loader.ErrNotFound):
		c.find("device map entry "+r.spec.Device(), readd, "is missing")
	case err != nil:
		return err
	case have.HostMAC.String() != want.HostMAC.String() || have.ContainerMAC.String() != want.MAC.String():
		c.find("device map entry "+r.spec.Device(), readd, "has MACs %s and %s, not %s and %s", have.HostMAC, have.ContainerMAC, want.HostMAC, want.MAC)
	}
	tracked := false
	for _, a := range r.spec.Addresses {
		entry, err := c.checkEntry(node, index, a)
		if err != nil {
			return err
		}
		tracked = tracked || entry.Tracked
	}
	if tracked {
		return r.checkTracked(c, node)
	}
	return nil
}

func (r *repairer) checkTracked(c *checker, node *loader.Node) error {
	for _, name := range switchedOff() {
		c.find("sysctl net/"+name, "sysctl -w net/"+name+"=1", "is not 1")
	}
	uplinks, err := r.spec.uplinks()
	if err != nil {
		return err
	}
	for index := range uplinks {
		wrong := node.UplinkAttached(index)
		if wrong == nil {
			continue
		}
		link, err := netlink.LinkByIndex(index)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read uplink %d: %w", index, err)
		}
		name := link.Attrs().Name
		c.find("uplink "+name, "ziplinectl attach "+name+" --uplink", "%v", wrong)
	}
	return nil
}

// mend makes everything of the endpoint right, in the order of ADD. What is right
// already stays as it is. It goes on after an error.
func (r *repairer) mend() error {
	e := &Endpoint{Pair: r.spec.Pair, Index: r.link.Attrs().Index, HostMAC: r.spec.hostMAC()}
	e.MTU = r.link.Attrs().MTU
	if _, mtu := containerEnd(r.link.Attrs()); mtu > 0 {
		e.MTU = mtu
	}
	errs := []error{r.mendDevice(), r.mendSwitches(), r.mendAddresses(e), r.mendClaims(e), r.mendMaps(e)}
	return errors.Join(errs...)
}

func (r *repairer) mendDevice() error {
	attrs, s := r.link.Attrs(), r.spec
	var errs []error
	group := Group
	if !s.SourceCheck {
		group = GroupUnchecked
	}
	if attrs.Group != uint32(group) {
		errs = append(errs, netlink.LinkSetGroup(r.link, group))
	}
	if attrs.HardwareAddr.String() != s.hostMAC().String() {
		errs = append(errs, netlink.LinkSetHardwareAddr(r.link, s.hostMAC()))
	}
	if s.MTU != 0 && attrs.MTU != s.MTU {
		errs = append(errs, netlink.LinkSetMTU(r.link, s.MTU))
	}
	change := nlink.LinkChange{Up: true, Alias: s.alias(), Conf4: map[int]uint32{nlink.ConfForwarding: 1, nlink.ConfProxyARP: 1}}
	errs = append(errs, nlink.SetLink(attrs.Index, change))
	for name, value := range r.deviceSwitches() {
		if err := ensureSysctl(name, value); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set device %s: %w", attrs.Name, err)
	}
	return nil
}

// mendSwitches also sets those that enableForwarding takes for set, because the
// default of new devices says so.
func (r *repairer) mendSwitches() error {
	want, err := r.spec.switches()
	errs := []error{err, enableForwarding(r.spec)}
	for name, value := range want {
		errs = append(errs, ensureSysctl(name, value))
	}
	return errors.Join(errs...)
}

func (r *repairer) mendAddresses(e *Endpoint) error {
	have, err := addrsOf(r.link)
	if err != nil {
		return err
	}
	var errs []error
	if _, has6 := r.spec.families(); has6 && !have[linkLocal(e.HostMAC)] {
		errs = append(errs, e.addLinkLocal())
	}
	for _, gw := range r.spec.gateways() {
		if have[gw] {
			continue
		}
		addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(gw, gw.BitLen()))}
		if gw.Is6() {
			addr.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
		}
		errs = append(errs, e.addAddress(addr))
	}
	return errors.Join(errs...)
}

// mendClaims is claimInSubnets for an endpoint that may have them already.
func (r *repairer) mendClaims(e *Endpoint) (err error) {
	for _, subnet := range r.spec.subnets() {
		lock, lockErr := lockSubnet(subnet, false)
		if lockErr != nil {
			return lockErr
		}
		defer func() { err = errors.Join(err, lock.Close()) }()
	}
	held, err := addressesOf(e.Index)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range r.spec.Addresses {
		if slices.Contains(held, a.Addr()) {
			errs = append(errs, e.setNeighbour(a.Addr()))
			continue
		}
		errs = append(errs, e.claim(a.Addr()))
	}
	if err := errors.Join(errs...); err != nil {
		return err // somebody else may have the address: nothing is keyed by it
	}
	return errors.Join(guard(r.spec), r.mendRuleset())
}

// mendRuleset installs the table where anything is wrong with it: the elements
// that it has are kept.
func (r *repairer) mendRuleset() error {
	return withRuleset(func(rules *nat.Ruleset) (err error) {
		err = rules.Check(r.spec.owner(), r.spec.sources(), r.spec.natOptions())
		var wrong *nat.CheckError
		if !errors.As(err, &wrong) {
			return err
		}
		lock, err := lockNode()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, lock.Close()) }()
		if err := rules.Install(); err != nil {
			return err
		}
		return addElements(rules, r.spec)
	})
}

// mendMaps publishes before it attaches: a device that has the programs and is
// not published is checked as if no address were leased to it, and the container
// is sending, other than in ADD.
func (r *repairer) mendMaps(e *Endpoint) (err error) {
	if !r.spec.accelerated() {
		return nil
	}
	if _, err := (loader.Site{}).Load(); err != nil {
		return err
	}
	node, err := loader.Find(e.Index)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	_, tracked := r.spec.prepareTracking(node)
	for _, a := range r.spec.Addresses {
		if err := node.Upsert(a.Addr(), e.entry(r.spec, a, tracked)); err != nil {
			return err
		}
	}
	if _, err := (loader.Site{}).AttachDevice(e.Index); err != nil {
		return err
	}
	if !tracked {
		return nil
	}
	return r.spec.attachUplinks(node)
}
