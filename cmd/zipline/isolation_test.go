// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"net/netip"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestPortIsolation has two isolated containers, one that is not, and an
// isolated one of another segment.
func TestPortIsolation(t *testing.T) {
	isolated := map[string]any{"portIsolation": true}
	for _, v := range all {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			a, b := top.attach(network{keys: isolated}), top.attach(network{keys: isolated})
			open := top.attach(network{})
			other := top.attach(network{name: "other", segment: "seg1", v4: "10.78.0.0/16", v6: "fd00:78::/64", keys: isolated})
			for _, f := range families {
				cutOff(t, a, b, f.addr(b))
				cutOff(t, b, a, f.addr(a))
				reach(t, &a.Namespace, &open.Namespace, f.addr(open))
				reach(t, &open.Namespace, &b.Namespace, f.addr(b))
				reach(t, &a.Namespace, top.Outside, f.outside)
				reach(t, &a.Namespace, &top.Node.Namespace, f.gateway(a))
				reach(t, &a.Namespace, &other.Namespace, f.addr(other))
			}
		})
	}
}

// cutOff checks that neither ICMP nor UDP from one container arrives at another.
func cutOff(t *testing.T, from, to *pod, addr netip.Addr) {
	t.Helper()
	if _, err := from.PingWith(addr, testrig.PingOptions{Negative: true}); err == nil {
		t.Errorf("%s answers a ping of %s", to.ID, from.ID)
	}
	server := to.ServeUDP(t, netip.AddrPortFrom(addr, 0))
	if _, err := from.EchoUDP(server.Addr, []byte("isolated"), testrig.Socket{}); err == nil {
		t.Errorf("%s answers a datagram of %s", to.ID, from.ID)
	}
}
