// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/zipline-cni/zipline/loader"
)

// direct says whether the mode lets neighbours talk past the stack. The other
// modes need no program.
func (p *Pair) direct() bool {
	return p.Forwarding == ForwardingDirect || p.Forwarding == ForwardingAuto && !wantsNetfilter()
}

// wantsNetfilter follows the switch that a bridge follows: where one of them
// is 1 the administrator wants netfilter to see traffic between containers.
func wantsNetfilter() bool {
	return sysctlIs("bridge/bridge-nf-call-iptables", "1") || sysctlIs("bridge/bridge-nf-call-ip6tables", "1")
}

// attached is the outcome of an attach.
type attached struct {
	node *loader.Node
	err  error
}

func (a attached) close() error {
	if a.node == nil {
		return nil
	}
	return a.node.Close()
}

// attach opens the programs of the node, which loads them for the first
// endpoint, and attaches them to the device. The kernel waits for a grace
// period when it attaches to TCX (tcx_entry_sync), some ten milliseconds, so
// it runs beside the rest of ADD. Setup and Close each receive the outcome once.
func attach(index int) <-chan attached {
	outcome := make(chan attached, 2)
	go func() {
		node, err := loader.Open(index)
		outcome <- attached{node, err}
		outcome <- attached{node, err}
	}()
	return outcome
}

// publish enters the addresses into the endpoints map: the last step, when
// everything that a packet may meet is ready. A node that cannot have the
// programs still has a working endpoint in tier kernel, and a warning.
func (e *Endpoint) publish(s *Spec) (warnings []string, err error) {
	if e.attached == nil {
		return nil, nil
	}
	programs := <-e.attached
	if programs.err != nil {
		return []string{fmt.Sprintf("forwarding %q is not available, %s is forwarded by the kernel: %v", s.Forwarding, s.Device(), programs.err)}, nil
	}
	for _, a := range s.Addresses {
		if err := programs.node.Upsert(a.Addr(), e.entry(programs.node, s, a)); err != nil {
			return nil, err
		}
	}
	if !s.shortens(programs.node) {
		warnings = append(warnings, fmt.Sprintf("%s: this kernel cannot look up conntrack from eBPF, so containers talk through the stack", s.Device()))
	}
	return warnings, nil
}

// shortens says whether the endpoint may talk past the stack. Without
// conntrack lookup a reply to a translated packet cannot be told from others,
// so only the administrator's word ("direct") allows it.
func (s *Spec) shortens(node *loader.Node) bool {
	return !s.Isolated && (node.TracksFlows() || s.Forwarding == ForwardingDirect)
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
		Direct:       s.shortens(node),
	}
}

// checkPrograms looks at the program and the entries of the endpoint. A kernel
// that cannot have the programs is no finding: ADD has stepped down too.
func (c *checker) checkPrograms() (err error) {
	if c.spec.Forwarding != ForwardingDirect && c.spec.Forwarding != ForwardingAuto {
		return nil
	}
	index := c.host.Attrs().Index
	node, err := loader.Find(index)
	if errors.Is(err, loader.ErrNotLoaded) {
		if c.spec.direct() && loader.Probe().Err() == nil {
			c.find("program", readd, "the eBPF programs are not loaded")
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	attached := node.Attached(index)
	published, err := c.published(node)
	if err != nil {
		return err
	}
	if errors.Is(attached, loader.ErrDetached) && !published && !c.spec.direct() {
		return nil // ADD found that netfilter was to see all traffic
	}
	if attached == nil && c.spec.Forwarding == ForwardingAuto && wantsNetfilter() {
		c.find("forwarding of "+c.spec.Device(), readd, "packets pass the stack by, and bridge-nf-call-iptables has been switched on since")
	}
	if attached != nil {
		c.find("program on "+c.spec.Device(), readd, "%v", attached)
	}
	for _, a := range c.spec.Addresses {
		if err := c.checkEntry(node, index, a); err != nil {
			return err
		}
	}
	return nil
}

// published says whether any address of the endpoint is in the map.
func (c *checker) published(node *loader.Node) (bool, error) {
	for _, a := range c.spec.Addresses {
		_, err := node.Lookup(a.Addr())
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, loader.ErrNotFound) {
			return false, err
		}
	}
	return false, nil
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
