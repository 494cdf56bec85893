// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/zipline-cni/zipline/datapath"
)

// Add attaches a container and prints the result. When it fails, everything
// that it made is gone again.
func (p *Plugin) Add(args *skel.CmdArgs) error {
	c, err := ParseConfig(args.StdinData, args.Args)
	if err != nil {
		return err
	}
	device := attachment(c, args).Device()
	manager, err := newManager(c, args)
	if err != nil {
		return addError(err, device)
	}
	endpoint, err := datapath.CreatePair(c.pair(args))
	if err != nil {
		return addError(err, device)
	}
	leased, err := p.connect(c, args, manager, endpoint)
	err = errors.Join(err, endpoint.Close())
	if err != nil {
		return withUndo(addError(err, device), undoAdd(c, args, manager, leased))
	}
	return nil
}

// connect leases addresses, connects the pair and prints the result. It
// returns what it leased, also when it fails.
func (p *Plugin) connect(c *Config, args *skel.CmdArgs, manager manager, endpoint *datapath.Endpoint) (*lease, error) {
	leased, err := manager.add()
	if err != nil {
		return nil, err
	}
	spec, err := c.spec(endpoint.Pair, leased)
	if err != nil {
		return leased, err
	}
	warnings, err := endpoint.Setup(spec)
	if err != nil {
		return leased, err
	}
	p.warn(warnings)
	return leased, p.print(c, c.result(args, endpoint, leased))
}

// undoAdd removes the attachment, then what was leased to it.
func undoAdd(c *Config, args *skel.CmdArgs, manager manager, leased *lease) error {
	hints := datapath.Hints{Leases: true}
	if leased != nil {
		hints = leased.hints()
		hints.Leases = true
	}
	return datapath.Remove(attachment(c, args), hints, manager.del)
}

// pair describes the veth pair that the configuration asks for.
func (c *Config) pair(args *skel.CmdArgs) datapath.Pair {
	return datapath.Pair{
		Attachment:  attachment(c, args),
		Netns:       args.Netns,
		MAC:         c.mac,
		MTU:         c.MTU,
		BigTCP:      c.BigTCP,
		SourceCheck: c.SourceCheck == nil || *c.SourceCheck,
		Forwarding:  c.Forwarding,
	}
}

// spec describes the endpoint that the configuration and the lease ask for.
// It completes the lease as the bridge plugin does: gateways that the IPAM
// plugin left out, and the default routes of isDefaultGateway.
func (c *Config) spec(pair datapath.Pair, l *lease) (*datapath.Spec, error) {
	if len(l.addresses) == 0 {
		return nil, newError(types.ErrInvalidNetworkConfig, "ipam", "IPAM plugin returned missing IP config")
	}
	l.complete(c.IsGateway, c.IsDefaultGateway)
	spec := &datapath.Spec{
		Pair:      pair,
		Segment:   c.Bridge,
		Addresses: l.addresses,
		Routes:    l.routes,
		IsGateway: c.IsGateway,
		DAD:       c.EnableDAD,
		MACCheck:  c.MACSpoofCheck,
		Isolated:  c.PortIsolation,

		Uplinks:      c.Uplinks,
		SlowPathMark: uint32(c.SlowPathMark),
	}
	if c.IPMasq {
		spec.Masquerade = &datapath.Masquerade{FullyRandom: c.MasqueradeFullyRandom, Egress: c.egress, Exempt: c.exempt}
	}
	if pair.MTU > 0 && pair.MTU < datapath.MinMTU6 && l.has6() {
		return nil, invalid("mtu", "mtu %d is too small for IPv6 (at least %d)", pair.MTU, datapath.MinMTU6)
	}
	if own := l.gatewayConflict(); own != "" {
		return nil, invalid("ipam", "address %s is the gateway's", own)
	}
	return spec, nil
}
