// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"fmt"
	"testing"
)

// NewHost makes one more machine of the world, with nothing but lo.
func (w *World) NewHost(tb testing.TB, name string) *Namespace {
	tb.Helper()
	ns, err := newNamespace(name, 0, func() error { return nil })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(ns.Close)
	ns.MustRun(tb, "ip", "link", "set", "lo", "up")
	return ns
}

// Wire joins two machines by a veth pair that is up and has this name and MTU at
// both ends.
func (ns *Namespace) Wire(tb testing.TB, other *Namespace, device string, mtu int) {
	tb.Helper()
	ns.MustRun(tb, "ip", "link", "add", device, "mtu", fmt.Sprint(mtu), "type", "veth",
		"peer", "name", device, "mtu", fmt.Sprint(mtu), "netns", other.path())
	for _, end := range []*Namespace{ns, other} {
		end.MustRun(tb, "ip", "link", "set", device, "up")
	}
}
