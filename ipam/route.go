// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"fmt"
	"net/netip"
)

// Route is a route of the configuration, carried through to the result. A zero
// value or nil means that the configuration doesn't have the key.
type Route struct {
	Dst      netip.Prefix // with its host bits as written
	GW       netip.Addr
	MTU      int // bytes
	AdvMSS   int // bytes
	Priority int
	Table    *int
	Scope    *int
}

// rawRoute is a route of the configuration. host-local knows the keys behind gw
// since version 1.1 of the CNI specification.
type rawRoute struct {
	Dst      text `json:"dst"`
	GW       text `json:"gw"`
	MTU      int  `json:"mtu"`
	AdvMSS   int  `json:"advmss"`
	Priority int  `json:"priority"`
	Table    *int `json:"table"`
	Scope    *int `json:"scope"`
}

func newRoutes(raw []*rawRoute) ([]Route, error) {
	var routes []Route
	for i, r := range raw {
		key := fmt.Sprintf("ipam.routes[%d]", i)
		if r == nil {
			return nil, &ConfigError{key, "want an object, not null"}
		}
		dst, err := r.Dst.prefix(key + ".dst")
		if err != nil {
			return nil, err
		}
		gw, err := r.GW.address(key + ".gw")
		if err != nil {
			return nil, err
		}
		routes = append(routes, Route{
			Dst: dst, GW: gw, MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope,
		})
	}
	return routes, nil
}
