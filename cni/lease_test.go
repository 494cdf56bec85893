// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/ipam"
)

func newLease(addresses ...string) *lease {
	l := &lease{}
	for _, a := range addresses {
		l.addresses = append(l.addresses, datapath.Address{Prefix: netip.MustParsePrefix(a)})
	}
	return l
}

func TestLeaseIsCompletedAsBridgeDoes(t *testing.T) {
	cases := []struct {
		name                        string
		isGateway, isDefaultGateway bool
		routes                      []datapath.Route
		gateway                     string
		count                       int
	}{
		{"no gateway asked for", false, false, nil, "invalid IP", 0},
		{"the first address of the subnet is the gateway", true, false, nil, "10.1.0.1", 0},
		{"a default route for each family", true, true, nil, "10.1.0.1", 2},
		{"a default route that is there already", true, true, []datapath.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0")}}, "10.1.0.1", 2},
		{"a default route in another table does not count", true, true,
			[]datapath.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Table: new(int)}}, "10.1.0.1", 3},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLease("10.1.0.9/24", "fd00::9/64")
			l.routes = c.routes
			l.complete(c.isGateway, c.isDefaultGateway)
			if got := l.addresses[0].Gateway.String(); got != c.gateway {
				t.Errorf("gateway %s, want %s", got, c.gateway)
			}
			if len(l.routes) != c.count {
				t.Errorf("routes %+v, want %d", l.routes, c.count)
			}
		})
	}
}

func TestGatewayConflict(t *testing.T) {
	l := newLease("10.1.0.1/24")
	l.complete(true, false)
	if got := l.gatewayConflict(); got != "10.1.0.1" {
		t.Errorf("gatewayConflict() = %q for the container that has the gateway's address", got)
	}
}

func TestPrefixOf(t *testing.T) {
	cases := []struct {
		in   net.IPNet
		want string
	}{
		{net.IPNet{IP: net.IPv4(10, 1, 0, 9), Mask: net.CIDRMask(24, 32)}, "10.1.0.9/24"},
		{net.IPNet{IP: net.IPv4(10, 1, 0, 9), Mask: net.CIDRMask(120, 128)}, "10.1.0.9/24"},
		{net.IPNet{IP: net.ParseIP("fd00::9"), Mask: net.CIDRMask(64, 128)}, "fd00::9/64"},
		{net.IPNet{IP: net.ParseIP("fd00::9"), Mask: net.IPMask{1, 2}}, ""},
		{net.IPNet{}, ""},
	}
	for _, c := range cases {
		got, err := prefixOf(c.in)
		if c.want == "" {
			if err == nil {
				t.Errorf("prefixOf(%v) = %s, want an error", c.in, got)
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("prefixOf(%v) = %s, %v, want %s", c.in, got, err, c.want)
		}
	}
}

func TestErrorsHaveTheirCodes(t *testing.T) {
	cases := []struct {
		err     error
		code    uint
		details string
	}{
		{datapath.ErrExists, 100, "CNI_IFNAME"},
		{datapath.ErrOwnNetns, 8, "CNI_NETNS"},
		{datapath.ErrNetns, 8, "CNI_NETNS"},
		{&datapath.AddressInUseError{Address: netip.MustParseAddr("10.1.0.9"), Owner: "device x"}, 101, "10.1.0.9"},
		{&datapath.ConfigError{Key: "routes", Value: "x", Err: errors.New("no")}, 7, "routes"},
		{&datapath.UnsupportedError{Key: "bigTCP", Reason: errors.New("no")}, 105, "bigTCP"},
		{datapath.ErrBusy, 11, "zlx"},
		{ipam.ErrExhausted, 11, "ipam"},
		{ipam.ErrInUse, 101, "ipam"},
		{ipam.ErrDuplicate, 101, "ipam"},
		{&ipam.ConfigError{Key: "ipam.subnet", Msg: "bad"}, 7, "ipam.subnet"},
		{&fs.PathError{Op: "open", Path: "/x", Err: fs.ErrPermission}, 5, "/x"},
		{types.NewError(51, "limited", "x"), 51, "x"},
		{errors.New("netlink"), 104, "zlx"},
	}
	for _, c := range cases {
		// Wrapped, and with a failed undo, as ADD returns it.
		got := withUndo(addError(fmt.Errorf("step: %w", c.err), "zlx"), errors.New("left"))
		if !strings.HasSuffix(got.Msg, "; undo: left") {
			t.Errorf("%v: message %q does not say what could not be undone", c.err, got.Msg)
		}
		if got.Code != c.code || got.Details != c.details {
			t.Errorf("%v: code %d details %q, want %d %q", c.err, got.Code, got.Details, c.code, c.details)
		}
	}
}
