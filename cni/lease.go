// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/ipam"
)

// lease is what an address manager gave a container.
type lease struct {
	addresses []datapath.Address
	routes    []datapath.Route
	dns       types.DNS
}

// leaseOfPool translates the answer of the pool served in-process.
func leaseOfPool(r *ipam.Result) *lease {
	l := &lease{dns: types.DNS{Nameservers: r.DNS.Nameservers, Domain: r.DNS.Domain, Search: r.DNS.Search, Options: r.DNS.Options}}
	for _, a := range r.Addresses {
		l.addresses = append(l.addresses, datapath.Address{Prefix: a.Prefix, Gateway: a.Gateway})
	}
	for _, r := range r.Routes {
		l.routes = append(l.routes, datapath.Route{
			Dst: r.Dst, Gateway: r.GW, MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope,
		})
	}
	return l
}

// leaseOfResult translates a CNI result: an IPAM plugin's, or prevResult.
func leaseOfResult(r *current.Result) (*lease, error) {
	l := &lease{dns: r.DNS}
	for _, ip := range r.IPs {
		prefix, err := prefixOf(ip.Address)
		if err != nil {
			return nil, fmt.Errorf("read address of result: %w", err)
		}
		l.addresses = append(l.addresses, datapath.Address{Prefix: prefix, Gateway: addrOf(ip.Gateway)})
	}
	for _, route := range r.Routes {
		dst, err := prefixOf(route.Dst)
		if err != nil {
			return nil, fmt.Errorf("read route of result: %w", err)
		}
		l.routes = append(l.routes, datapath.Route{
			Dst: dst, Gateway: addrOf(route.GW), MTU: route.MTU, AdvMSS: route.AdvMSS,
			Priority: route.Priority, Table: route.Table, Scope: route.Scope,
		})
	}
	return l, nil
}

func prefixOf(n net.IPNet) (netip.Prefix, error) {
	addr := addrOf(n.IP)
	ones, bits := n.Mask.Size()
	if bits == 128 && addr.Is4() {
		ones -= 96 // the mask of an address in IPv4-mapped form
	}
	if !addr.IsValid() || bits == 0 || ones < 0 || ones > addr.BitLen() {
		return netip.Prefix{}, fmt.Errorf("bad prefix %s", n.String())
	}
	return netip.PrefixFrom(addr, ones), nil
}

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// complete fills in what the bridge plugin fills in: the first address of
// the subnet as gateway, and a default route per family unless there is one.
func (l *lease) complete(isGateway, isDefaultGateway bool) {
	defaulted := map[bool]bool{}
	for _, r := range l.routes {
		if r.Dst.Bits() == 0 && r.Table == nil {
			defaulted[r.Dst.Addr().Is4()] = true
		}
	}
	for i, a := range l.addresses {
		if !a.Gateway.IsValid() && isGateway {
			l.addresses[i].Gateway = a.Subnet().Addr().Next()
		}
		if is4 := a.Addr().Is4(); isDefaultGateway && !defaulted[is4] {
			defaulted[is4] = true
			l.routes = append(l.routes, defaultRoute(l.addresses[i]))
		}
	}
}

func defaultRoute(a datapath.Address) datapath.Route {
	everywhere := netip.IPv4Unspecified()
	if a.Addr().Is6() {
		everywhere = netip.IPv6Unspecified()
	}
	return datapath.Route{Dst: netip.PrefixFrom(everywhere, 0), Gateway: a.Gateway}
}

// gatewayConflict returns an address that the container would share with
// its gateway, "" when there is none.
func (l *lease) gatewayConflict() string {
	for _, a := range l.addresses {
		if a.Addr() == a.Gateway {
			return a.Addr().String()
		}
	}
	return ""
}

func (l *lease) has6() bool {
	for _, a := range l.addresses {
		if a.Addr().Is6() {
			return true
		}
	}
	return false
}

func (l *lease) hints() datapath.Hints {
	var h datapath.Hints
	for _, a := range l.addresses {
		h.Addresses = append(h.Addresses, a.Addr())
		h.Subnets = append(h.Subnets, a.Subnet())
	}
	return h
}
