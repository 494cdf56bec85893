// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/loader"
)

// accelerated says whether the mode has programs at all.
func (p *Pair) accelerated() bool { return p.Forwarding != ForwardingKernel }

// direct says whether the mode lets neighbours talk without netfilter having
// admitted the flow.
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
// endpoint, and attaches them to the device. It runs beside the rest of ADD.
// Setup and Close each receive the outcome once.
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
	warnings, tracked := s.prepareTracking(programs.node)
	for _, a := range s.Addresses {
		if err := programs.node.Upsert(a.Addr(), e.entry(s, a, tracked)); err != nil {
			return nil, err
		}
	}
	if !tracked {
		return warnings, nil
	}
	// Only now: the removal of the last endpoint takes the programs off the
	// uplinks, and from here on this endpoint is there to see.
	if err := s.attachUplinks(programs.node); err != nil {
		warnings = append(warnings, fmt.Sprintf("traffic of %s with the outside stays in the stack: %v", s.Device(), err))
	}
	return warnings, nil
}

// conntrackSwitches make conntrack take the packets of a flow as they come:
// those that eBPF carries it does not see, so its idea of a TCP window grows old.
// The second is the same for resets, half of which it would call invalid after 2 GiB.
var conntrackSwitches = []string{
	"netfilter/nf_conntrack_tcp_be_liberal",
	"netfilter/nf_conntrack_tcp_ignore_invalid_rst",
}

// prepareTracking says whether established flows of the endpoint may pass the
// stack by.
func (s *Spec) prepareTracking(node *loader.Node) (warnings []string, tracked bool) {
	if !node.TracksFlows() {
		reason := "established flows stay in the stack"
		if !s.mayBeDirect(false) {
			reason = "it is forwarded by the kernel"
		}
		return []string{fmt.Sprintf("this kernel cannot look up conntrack from eBPF: %s: %s", s.Device(), reason)}, false
	}
	for _, name := range conntrackSwitches {
		if err := ensureSysctl(name, "1"); err != nil {
			return []string{fmt.Sprintf("established flows of %s stay in the stack: %v", s.Device(), err)}, false
		}
	}
	return nil, true
}

// mayBeDirect says whether an endpoint whose established flows pass the stack
// by, or do not, may talk to neighbours past it from the first packet on. Without
// the lookup in conntrack a reply to a translated packet cannot be told from
// others, so only the administrator's word ("direct") allows it.
func (s *Spec) mayBeDirect(tracked bool) bool {
	return s.direct() && !s.Isolated && (tracked || s.Forwarding == ForwardingDirect)
}

func (e *Endpoint) entry(s *Spec, a Address, tracked bool) loader.Endpoint {
	return loader.Endpoint{
		IfIndex:      e.Index,
		MTU:          e.MTU,
		Network:      s.network(a),
		ContainerMAC: e.MAC,
		HostMAC:      e.HostMAC,
		SourceCheck:  s.SourceCheck,
		MACCheck:     s.MACCheck,
		Direct:       s.mayBeDirect(tracked),
		Tracked:      tracked,
		SlowPathMark: s.SlowPathMark,
		NetworkName:  s.Attachment.Network,
	}
}

// attachUplinks attaches the programs to the uplinks that are there.
func (s *Spec) attachUplinks(node *loader.Node) error {
	uplinks, err := s.uplinks()
	errs := []error{err}
	for index, mtu := range uplinks {
		if err := node.AttachUplink(index, mtu); err != nil && !isNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// deviceAlive says whether there is a device with this index.
func deviceAlive(index int) bool {
	_, err := netlink.LinkByIndex(index)
	return !isNotFound(err)
}
