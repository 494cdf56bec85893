// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"slices"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

func (top *topology) wantPrograms(t *testing.T, device string, want ...string) {
	t.Helper()
	if have := top.Node.Programs(t, device); !slices.Equal(have, want) {
		t.Errorf("%s has programs %v, want %v", device, have, want)
	}
}

var uplinkPrograms = []string{"ingress from_uplink", "egress to_device"}

// TestUplinks: which devices have the programs of an uplink, and for how long.
func TestUplinks(t *testing.T) {
	remake := func(top *topology, t *testing.T) {
		t.Helper()
		top.Node.MustRun(t, "ip", "link", "del", "spare0")
		top.Node.MustRun(t, "ip", "link", "add", "spare0", "up", "type", "veth", "peer", "name", "spare1")
	}
	for _, c := range []struct {
		name    string
		uplinks []string // nil: not configured
		with    []string // devices that then have the programs
		without []string
	}{
		{"default routes", nil, []string{testrig.Uplink}, []string{"spare0", "tunnel0", "lo"}},
		{"a name", []string{"spare0"}, []string{"spare0"}, []string{testrig.Uplink, "tunnel0"}},
		{"a tunnel and one that is not there", []string{"tunnel0", "missing0"}, []string{"tunnel0"}, []string{testrig.Uplink, "spare0"}},
		{"globs", []string{"uplink*", "tun*"}, []string{testrig.Uplink, "tunnel0"}, []string{"spare0", "spare1"}},
		{"everything", []string{"*"}, []string{testrig.Uplink, "tunnel0", "spare0"}, []string{"lo"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, trackedTier, testrig.Options{})
			top.Node.MustRun(t, "ip", "link", "add", "spare0", "up", "type", "veth", "peer", "name", "spare1")
			top.Node.MustRun(t, "ip", "link", "add", "tunnel0", "up", "type", "vxlan", "id", "7", "dstport", "4789", "local", testrig.NodeIPv4.String())
			n := network{keys: map[string]any{}}
			if c.uplinks != nil {
				n.keys["uplinks"] = c.uplinks
			}
			wantAll := func(when string) {
				t.Helper()
				for _, device := range c.with {
					top.wantPrograms(t, device, uplinkPrograms...)
				}
				for _, device := range c.without {
					top.wantPrograms(t, device)
				}
				if t.Failed() {
					t.Fatal(when)
				}
			}
			first := top.attach(n)
			wantAll("after the first ADD")
			// The first endpoint's own device is no uplink, whatever the globs say.
			second := top.attach(n)
			top.wantPrograms(t, hostDevice(first), "ingress from_endpoint", "egress to_device")
			remake(top, t)
			mustSucceed(t, "CHECK", first.Invoke(t, "CHECK", withPrevResult(t, first.config, first.result)))
			wantAll("after an uplink was made again and a CHECK")
			remake(top, t)
			third := top.attach(n)
			wantAll("after an uplink was made again and an ADD")
			top.del(first)
			top.del(second)
			wantAll("after a DEL that was not the last")
			top.del(third)
			for _, device := range append(c.with, c.without...) {
				top.wantPrograms(t, device)
			}
		})
	}
}

// TestUplinkOfLayer3: a device without Ethernet frames cannot be an uplink, and
// is none: all goes by the stack.
func TestUplinkOfLayer3(t *testing.T) {
	top := newTopology(t, trackedTier, testrig.Options{})
	top.Node.MustRun(t, "ip", "tuntap", "add", "tun0", "mode", "tun")
	top.Node.MustRun(t, "ip", "link", "set", "tun0", "up")
	p := top.attach(network{keys: map[string]any{"uplinks": []string{"tun0"}}})
	top.wantPrograms(t, "tun0")
	for _, f := range families {
		reach(t, &p.Namespace, top.Outside, f.outside)
	}
}
