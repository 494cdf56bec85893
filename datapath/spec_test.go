// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net"
	"net/netip"
	"reflect"
	"testing"

	"github.com/zipline-cni/zipline/datapath/nat"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func dualStack() *Spec {
	return &Spec{
		Segment: "cni0",
		Addresses: []Address{
			{Prefix: prefix("10.1.0.5/24"), Gateway: addr("10.1.0.1")},
			{Prefix: prefix("fd00::5/64"), Gateway: addr("fd00::1")},
		},
	}
}

func TestSourcesFollowTheFamily(t *testing.T) {
	cases := []struct {
		name string
		m    *Masquerade
		want []nat.Source
	}{
		{"none without masquerade", nil, nil},
		{"masquerade both", &Masquerade{}, []nat.Source{
			{Address: addr("10.1.0.5"), Subnet: prefix("10.1.0.0/24"), Action: nat.Masquerade},
			{Address: addr("fd00::5"), Subnet: prefix("fd00::/64"), Action: nat.Masquerade},
		}},
		{"an egress address and an exempt prefix of one family leave the other alone",
			&Masquerade{Egress: []netip.Addr{addr("192.0.2.9")}, Exempt: []netip.Prefix{prefix("fd01::/16")}},
			[]nat.Source{
				{Address: addr("10.1.0.5"), Subnet: prefix("10.1.0.0/24"), Action: nat.SNAT, To: addr("192.0.2.9")},
				{Address: addr("fd00::5"), Subnet: prefix("fd00::/64"), Action: nat.Masquerade, Exempt: []netip.Prefix{prefix("fd01::/16")}},
			}},
		{"random ports", &Masquerade{FullyRandom: true}, []nat.Source{
			{Address: addr("10.1.0.5"), Subnet: prefix("10.1.0.0/24"), Action: nat.MasqueradeFullyRandom},
			{Address: addr("fd00::5"), Subnet: prefix("fd00::/64"), Action: nat.MasqueradeFullyRandom},
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := dualStack()
			s.Masquerade = c.m
			if got := s.sources(); !reflect.DeepEqual(got, c.want) {
				t.Errorf("sources() = %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestNetworkIdentityIsSegmentAndSubnet(t *testing.T) {
	a, b := dualStack(), dualStack()
	b.Addresses[0].Prefix = prefix("10.1.0.77/24")
	if a.network(a.Addresses[0]) != b.network(b.Addresses[0]) {
		t.Error("two addresses of one subnet are no neighbours")
	}
	if a.network(a.Addresses[0]) == a.network(a.Addresses[1]) {
		t.Error("addresses of two subnets are neighbours")
	}
	b.Segment = "cni1"
	if a.network(a.Addresses[0]) == b.network(b.Addresses[0]) {
		t.Error("addresses of two segments are neighbours")
	}
}

func TestSubnetRoutesLeadIPv6ThroughTheNode(t *testing.T) {
	mac := net.HardwareAddr{0x02, 0x11, 0x22, 0x33, 0x44, 0x55}
	got := dualStack().subnetRoutes(mac)
	want := []Route{
		{Dst: prefix("fd00::/64"), Gateway: addr("fe80::11:22ff:fe33:4455"), Priority: subnetRouteMetric},
		{Dst: prefix("fd00::1/128"), Priority: subnetRouteMetric},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("subnetRoutes() = %+v, want %+v", got, want)
	}
	single := &Spec{Addresses: []Address{{Prefix: prefix("fd00::5/128")}}}
	if got := single.subnetRoutes(mac); got != nil {
		t.Errorf("a single address got subnet routes %+v", got)
	}
}

func TestRouteWithoutGatewayGoesThroughTheFirstOfItsFamily(t *testing.T) {
	s := dualStack()
	cases := []struct {
		route Route
		want  netip.Addr
	}{
		{Route{Dst: prefix("0.0.0.0/0")}, addr("10.1.0.1")},
		{Route{Dst: prefix("::/0")}, addr("fd00::1")},
		{Route{Dst: prefix("0.0.0.0/0"), Gateway: addr("10.1.0.9")}, addr("10.1.0.9")},
	}
	for _, c := range cases {
		if got := s.gatewayFor(c.route); got != c.want {
			t.Errorf("gatewayFor(%+v) = %s, want %s", c.route, got, c.want)
		}
	}
	s.Addresses = s.Addresses[1:]
	if got := s.gatewayFor(Route{Dst: prefix("0.0.0.0/0")}); got.IsValid() {
		t.Errorf("an IPv4 route goes through %s", got)
	}
}

func TestGatewaysAreOnTheHostOnlyForAGatewayNetwork(t *testing.T) {
	s := dualStack()
	if got := s.gateways(); got != nil {
		t.Errorf("gateways() = %v without isGateway", got)
	}
	s.IsGateway = true
	s.Addresses = append(s.Addresses, Address{Prefix: prefix("10.1.0.6/24"), Gateway: addr("10.1.0.1")})
	if got := s.gateways(); len(got) != 2 {
		t.Errorf("gateways() = %v, want each address once", got)
	}
}
