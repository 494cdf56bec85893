// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"slices"

	"github.com/zipline-cni/zipline/loader"
)

// checkPrograms looks at the programs and the entries of the endpoint.
func (c *checker) checkPrograms() (err error) {
	if !c.spec.accelerated() {
		return nil
	}
	index := c.host.Attrs().Index
	node, err := loader.Find(index)
	if errors.Is(err, loader.ErrNotLoaded) {
		c.checkTier()
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	if err := node.Attached(index); err != nil {
		c.find("program on "+c.spec.Device(), readd, "%v", err)
	}
	tracked := false
	for _, a := range c.spec.Addresses {
		entry, err := c.checkEntry(node, index, a)
		if err != nil {
			return err
		}
		tracked = tracked || entry.Tracked
	}
	switch off := switchedOff(); {
	case !node.TracksFlows():
		c.checkTier()
	case tracked:
		c.checkTracking(node, off)
	case len(off) > 0 && c.spec.Forwarding == ForwardingTracked:
		c.find("forwarding of "+c.spec.Device(), "sysctl -w net/"+off[0]+"=1, then "+readd, "falls back to the kernel's own: net/%s is not 1", off[0])
	}
	return nil
}

// checkTier reports a mode that was asked for by name and cannot be had. What
// falls back by itself is no finding: the endpoint is as its configuration says.
func (c *checker) checkTier() {
	report := loader.Probe()
	object := "forwarding of " + c.spec.Device()
	switch err := report.Err(); {
	case err == nil && report.Conntrack == nil:
		c.find("program", readd, "the eBPF programs are not loaded, or are those of a poorer kernel")
	case c.spec.Forwarding == ForwardingAuto:
	case err != nil:
		c.find(object, "see the reason, or configure forwarding auto", "falls back to the kernel's own: %v", err)
	case c.spec.Forwarding == ForwardingTracked:
		c.find(object, "a newer kernel, or forwarding auto", "falls back to the kernel's own: %v", report.Conntrack)
	}
}

// switchedOff returns those conntrackSwitches that are not 1. ADD sets them; where
// it cannot, established flows stay in the stack.
func switchedOff() []string {
	return slices.DeleteFunc(slices.Clone(conntrackSwitches), func(name string) bool { return sysctlIs(name, "1") })
}

// checkTracking looks at what the flows with the outside need, and mends what
// is the node's and not the endpoint's: an uplink that was made again.
func (c *checker) checkTracking(node *loader.Node, off []string) {
	for _, name := range off {
		c.find("sysctl net/"+name, "sysctl -w net/"+name+"=1", "is not 1: conntrack may call carried connections invalid")
	}
	if err := c.spec.attachUplinks(node); err != nil {
		c.find("uplinks", readd, "%v", err)
	}
}

// checkEntry compares the map entry of an address, and returns it. The
// container's MAC may have been changed by a later plugin and is not compared.
func (c *checker) checkEntry(node *loader.Node, index int, a Address) (loader.Endpoint, error) {
	object := "endpoint map entry " + a.Addr().String()
	entry, err := node.Lookup(a.Addr())
	if errors.Is(err, loader.ErrNotFound) {
		c.find(object, readd, "is missing")
		return entry, nil
	}
	if err != nil {
		return entry, err
	}
	s := c.spec
	switch {
	case entry.IfIndex != index:
		c.find(object, readd, "is for device %d, not %d", entry.IfIndex, index)
	case entry.Network != s.network(a):
		c.find(object, readd, "is of another network")
	case entry.HostMAC.String() != s.hostMAC().String():
		c.find(object, readd, "has host MAC %s, not %s", entry.HostMAC, s.hostMAC())
	case entry.SourceCheck != s.SourceCheck || entry.MACCheck != s.MACCheck:
		c.find(object, readd, "has other checks than the configuration")
	case entry.SlowPathMark != s.SlowPathMark:
		c.find(object, readd, "has slowPathMark %#x, not %#x", entry.SlowPathMark, s.SlowPathMark)
	case entry.Direct && !s.mayBeDirect(entry.Tracked):
		c.find("forwarding of "+s.Device(), readd, "containers talk past netfilter, and bridge-nf-call-iptables has been switched on since")
	case !entry.Direct && s.mayBeDirect(entry.Tracked):
		c.find("forwarding of "+s.Device(), readd, "netfilter sees all flows between containers, and bridge-nf-call-iptables has been switched off since")
	case !entry.Tracked && node.TracksFlows() && len(switchedOff()) == 0:
		c.find(object, readd, "keeps established flows in the stack")
	}
	return entry, nil
}
