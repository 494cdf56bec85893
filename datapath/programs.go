// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/zipline-cni/zipline/loader"
)

// direct says whether neighbours may talk past the stack.
func (s *Spec) direct(node *loader.Node) bool {
	switch s.Forwarding {
	case ForwardingDirect:
		return true
	case ForwardingAuto:
		return node.TracksFlows() && !wantsNetfilter()
	default:
		return false
	}
}

// wantsNetfilter follows the switch that a bridge follows: where one of them
// is 1 the administrator wants netfilter to see traffic between containers.
func wantsNetfilter() bool {
	return sysctlIs("bridge/bridge-nf-call-iptables", "1") || sysctlIs("bridge/bridge-nf-call-ip6tables", "1")
}

// tierWarning says why auto is slower than it could be.
func (s *Spec) tierWarning(node *loader.Node) []string {
	if s.Forwarding == ForwardingAuto && !node.TracksFlows() {
		return []string{fmt.Sprintf("%s: this kernel cannot look up conntrack from eBPF, so containers talk through the stack", s.Device())}
	}
	return nil
}

// publish attaches the program and enters the addresses into the endpoints
// map: the last step, when everything that a packet may meet is ready.
func (e *Endpoint) publish(node *loader.Node, s *Spec) error {
	for _, a := range s.Addresses {
		if err := node.Upsert(a.Addr(), e.entry(node, s, a)); err != nil {
			return err
		}
	}
	return nil
}

func (e *Endpoint) entry(node *loader.Node, s *Spec, a Address) loader.Endpoint {
	return loader.Endpoint{
		IfIndex:      e.Index,
		MTU:          e.MTU,
		Network:      s.network(a),
		ContainerMAC: e.MAC,
		HostMAC:      e.HostMAC,
		SourceCheck:  s.SourceCheck,
		MACCheck:     s.MACCheck,
		Direct:       s.direct(node),
	}
}

// checkPrograms looks at the program and the entries of the endpoint. In the
// modes that fall back, a kernel that cannot have the programs is no finding.
func (c *checker) checkPrograms() error {
	if c.spec.Forwarding == ForwardingKernel {
		return nil
	}
	index := c.host.Attrs().Index
	node, err := loader.Find(index)
	if errors.Is(err, loader.ErrNotLoaded) {
		if report := loader.Probe(); report.Err() == nil {
			c.find("program", readd, "the eBPF programs are not loaded")
		}
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
	switch {
	case entry.IfIndex != index:
		c.find(object, readd, "is for device %d, not %d", entry.IfIndex, index)
	case entry.Network != c.spec.network(a):
		c.find(object, readd, "is of another network")
	case entry.HostMAC.String() != c.spec.hostMAC().String():
		c.find(object, readd, "has host MAC %s, not %s", entry.HostMAC, c.spec.hostMAC())
	case entry.SourceCheck != c.spec.SourceCheck || entry.MACCheck != c.spec.MACCheck:
		c.find(object, readd, "has other checks than the configuration")
	}
	return nil
}
