// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/datapath"
)

func TestNamesOfEndpoints(t *testing.T) {
	endpoint := func(network, id, device, address string) datapath.Attached {
		return datapath.Attached{
			Attachment: datapath.Attachment{Network: network, ContainerID: id, IfName: "eth0"}, HostDevice: device,
			Addresses: []netip.Addr{netip.MustParseAddr(address)},
		}
	}
	all := []datapath.Attached{
		endpoint("pods", "4f1c", "zl1", "10.62.0.2"), endpoint("pods", "4f1c0b2d", "zl2", "10.62.0.3"),
		endpoint("other", "4f1c0b2d", "zl3", "fd00::3"), endpoint("", "", "zl4", "10.62.0.4"),
	}
	for name, want := range map[string]string{
		"4f1c": "zl1", "4f1c0": "zl2 zl3", "4f": "zl1 zl2 zl3", "pods/4f": "zl1 zl2", "other/4f1c0b2d": "zl3", "zl4": "zl4",
		"10.62.0.3": "zl2", "::ffff:10.62.0.3": "zl2", "fd00:0::3": "zl3", "": "", "/": "", "pods/": "", "nope": "", "10.62.0": "", "zl": "",
		strings.Repeat("4f1c", 1000): "",
	} {
		chosen, err := (&endpointFilter{names: []string{name}}).choose(all)
		var devices []string
		for _, e := range chosen {
			devices = append(devices, e.HostDevice)
		}
		var usage usageError
		if got := strings.Join(devices, " "); got != want || (want == "") != errors.As(err, &usage) {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32", "::ffff:10.0.0.1": "10.0.0.1/32", "fe80::1%eth0": "fe80::1/128", "10.0.0.1/8": "10.0.0.0/8", "fd00::1/64": "fd00::/64",
		"": "", "nowhere": "", "10.0.0.1/33": "",
	} {
		prefix, err := parsePrefix(text)
		if got := prefix.String(); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: %s, %v; want %q", text, got, err, want)
		}
	}
}
