// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"net/netip"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// way is a direction that a flow may have, and the translation on it.
type way struct {
	name           string
	client, server string // hosts
	fast           string
	neighbours     bool
	// via is the address that the client knows the server by, with another port;
	// nil for the server's own.
	via map[string]netip.Addr
}

var (
	nodeAddr    = byFamily(testrig.NodeIPv4.String(), testrig.NodeIPv6.String())
	serviceAddr = byFamily("10.96.0.10", "fd00:96::10")
)

var (
	toNeighbour = way{name: "to a neighbour", client: "a", server: "b", fast: fastDirect, neighbours: true}
	toOther     = way{name: "to another network", client: "a", server: "c", fast: fastTracked}
	toOutside   = way{name: "to the outside through masquerade", client: "a", server: "outside", fast: fastTracked}
	toFar       = way{name: "to far through masquerade", client: "a", server: "far", fast: fastTracked}
	fromOutside = way{name: "from the outside through a host port", client: "peer", server: "a", fast: fastTracked, via: nodeAddr}
	toService   = way{name: "to a service on a neighbour", client: "a", server: "b", fast: fastTracked, via: serviceAddr}
	toItself    = way{name: "to a service of its own", client: "a", server: "a", fast: fastNone, via: serviceAddr}
	toNode      = way{name: "to the node", client: "a", server: "node", fast: fastNone}
	fromNode    = way{name: "from the node", client: "node", server: "a", fast: fastNone}
	allWays     = []way{
		toNeighbour, toOther, toOutside, fromOutside, toService, toItself, toNode, fromNode,
		{name: "to the outside with an egress address", client: "e", server: "outside", fast: fastTracked},
		{name: "to the outside without NAT", client: "d", server: "outside", fast: fastTracked},
		{name: "from the outside by route", client: "peer", server: "a", fast: fastTracked},
		{name: "from the outside through a balancer's address with masquerade", client: "peer", server: "a", fast: fastTracked, via: balanceAddr},
		{name: "to a service in another network", client: "a", server: "c", fast: fastTracked, via: serviceAddr},
		{name: "to a service on the outside", client: "a", server: "outside", fast: fastTracked, via: serviceAddr},
		{name: "from the node to a service", client: "node", server: "b", fast: fastNone, via: serviceAddr},
	}
	// natWays are those with a translation of each kind.
	natWays = []way{toNeighbour, toOutside, fromOutside, toService}
)
