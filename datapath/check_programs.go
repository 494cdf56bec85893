// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"

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
	for _, a := range c.spec.Addresses {
		if err := c.checkEntry(node, index, a); err != nil {
			return err
		}
	}
	if !node.TracksFlows() {
		c.checkTier()
		return nil
	}
	return c.checkTracking(node)
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

// checkTracking looks at what the flows with the outside need, and mends what
// is the node's and not the endpoint's: an uplink that was made again.
func (c *checker) checkTracking(node *loader.Node) error {
	for _, name := range conntrackSwitches {
		if !sysctlIs(name, "1") {
			c.find("sysctl net/"+name, "sysctl -w net/"+name+"=1", "is not 1: conntrack may call carried connections invalid")
		}
	}
	if err := c.spec.attachUplinks(node); err != nil {
		c.find("uplinks", readd, "%v", err)
	}
	return nil
}

// checkEntry compares the map entry of an address. The container's MAC may
// have been changed by a later plugin and is not compared.
func (c *checker) checkEntry(node *loader.Node, index int, a Address) error {
	object := "endpoint map entry " + a.Addr().String()
	entry, err := node.Lookup(a.Addr())
	if errors.Is(err, loader.ErrNotFound) {
		c.find(object, readd, "is missing")
		return nil
	}
	if err != nil {
		return err
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
	case entry.Direct && !s.mayBeDirect(node):
		c.find("forwarding of "+s.Device(), readd, "containers talk past netfilter, and bridge-nf-call-iptables has been switched on since")
	case !entry.Direct && s.mayBeDirect(node):
		c.find("forwarding of "+s.Device(), readd, "netfilter sees all flows between containers, and bridge-nf-call-iptables has been switched off since")
	case !entry.Tracked && node.TracksFlows():
		c.find(object, readd, "keeps established flows in the stack")
	}
	return nil
}
