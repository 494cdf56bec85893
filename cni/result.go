// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/zipline-cni/zipline/datapath"
)

// containerInterface is the index of the container's interface in a result,
// the same as in a result of the bridge plugin.
const containerInterface = 2

// result describes the attachment. In the bridge's place, first, stands the
// pattern of the network's host veths: chained plugins take the first name as
// that of the bridge and write rules on it (firewall with ingressPolicy:
// -i NAME ! -o NAME). On the name of a single host veth such rules cut the
// containers of a network off from each other, and grow with every ADD.
func (c *Config) result(args *skel.CmdArgs, endpoint *datapath.Endpoint, l *lease) *current.Result {
	r := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: endpoint.DevicePattern(), Mac: endpoint.HostMAC.String()},
			{Name: endpoint.Device(), Mac: endpoint.HostMAC.String()},
			{Name: args.IfName, Mac: endpoint.MAC.String(), Sandbox: args.Netns},
		},
		Routes: []*types.Route{},
		DNS:    l.dns,
	}
	if !c.DNS.IsEmpty() {
		r.DNS = c.DNS
	}
	for _, a := range l.addresses {
		r.IPs = append(r.IPs, &current.IPConfig{
			Interface: current.Int(containerInterface), Address: netOf(a.Prefix), Gateway: sliceOf(a.Gateway),
		})
	}
	for _, route := range l.routes {
		r.Routes = append(r.Routes, &types.Route{
			Dst: netOf(route.Dst), GW: sliceOf(route.Gateway), MTU: route.MTU, AdvMSS: route.AdvMSS,
			Priority: route.Priority, Table: route.Table, Scope: route.Scope,
		})
	}
	return r
}

func netOf(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: sliceOf(p.Addr()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func sliceOf(addr netip.Addr) net.IP {
	if !addr.IsValid() {
		return nil
	}
	return addr.AsSlice()
}

// print writes the result in the version that the configuration asks for.
func (p *Plugin) print(c *Config, r *current.Result) error {
	converted, err := r.GetAsVersion(c.version())
	if err != nil {
		return invalid("cniVersion", "convert result to version %s: %v", c.version(), err)
	}
	if err := converted.PrintTo(p.Stdout); err != nil {
		return newError(types.ErrIOFailure, "stdout", "write result: %v", err)
	}
	return nil
}

// version returns the version of the configuration; none means 0.1.0.
func (c *Config) version() string {
	if c.CNIVersion == "" {
		return "0.1.0"
	}
	return c.CNIVersion
}

// prevResult returns the result of the attachment's ADD, nil when the
// runtime gave none.
func prevResult(c *Config) (*current.Result, error) {
	if c.RawPrevResult == nil {
		return nil, nil
	}
	raw := *c
	if err := version.ParsePrevResult(&raw.PluginConf); err != nil {
		return nil, newError(types.ErrDecodingFailure, "prevResult", "read prevResult: %v", err)
	}
	r, err := current.NewResultFromResult(raw.PrevResult)
	if err != nil {
		return nil, newError(types.ErrDecodingFailure, "prevResult", "convert prevResult: %v", err)
	}
	return r, nil
}
