// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// Addresses of the node's uplink and of the outside host.
var (
	NodeIPv4    = netip.MustParseAddr("192.0.2.1")
	NodeIPv6    = netip.MustParseAddr("2001:db8:ffff::1")
	OutsideIPv4 = netip.MustParseAddr("192.0.2.2")
	OutsideIPv6 = netip.MustParseAddr("2001:db8:ffff::2")
	// Behind the outside host, reached by the node's default route only.
	InternetIPv4 = netip.MustParseAddr("198.51.100.10")
	InternetIPv6 = netip.MustParseAddr("2001:db8:100::10")
)

// Uplink is the name of the node's external device, and of the outside host's.
const Uplink = "uplink0"

// Options shape a world. The zero value is a fresh machine with defaults.
type Options struct {
	// PluginPath are the directories that CNI_PATH lists in the node.
	PluginPath []string
	// BridgeNetfilter is the value of net.bridge.bridge-nf-call-iptables and
	// -ip6tables in the node.
	BridgeNetfilter bool
	// NoIPv6 switches IPv6 off on the uplink and in everything made later.
	NoIPv6 bool
	// UplinkMTU is the uplink's MTU; 0 means 1500.
	UplinkMTU int
	// StrictReversePath sets rp_filter=1 in the node.
	StrictReversePath bool
}

// World is a node and an outside host. See the package comment.
type World struct {
	Node    *Node
	Outside *Namespace
	tb      testing.TB
}

// New makes a world that ends with the test. It needs root.
func New(tb testing.TB, opts Options) *World {
	tb.Helper()
	testutil.RequireRoot(tb)
	testutil.RequireProgram(tb, "ip")
	w := &World{tb: tb}
	var err error
	if w.Outside, err = newNamespace("outside", 0, func() error { return nil }); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.Outside.Close)
	w.Node = newNode(tb, opts)
	w.wireUplink(opts)
	return w
}

// wireUplink joins node and outside by a veth pair. Addresses skip duplicate
// address detection: a test must not wait for it.
func (w *World) wireUplink(opts Options) {
	w.tb.Helper()
	mtu := opts.UplinkMTU
	if mtu == 0 {
		mtu = 1500
	}
	w.Node.setDefaults(w.tb, opts)
	// The outside host is reachable as /proc/self/fd only while the file is
	// open in the executing program; the kernel wants a number it can look up.
	w.Node.MustRun(w.tb, "ip", "link", "add", Uplink, "mtu", fmt.Sprint(mtu), "type", "veth",
		"peer", "name", Uplink, "mtu", fmt.Sprint(mtu), "netns", w.Outside.path())
	batch := func(ns *Namespace, lines ...string) {
		w.tb.Helper()
		ns.MustRunInput(w.tb, strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
	}
	w.Outside.SetSysctl(w.tb, "ipv4/conf/all/accept_redirects", "0")
	for _, ns := range []*Namespace{w.Outside, &w.Node.Namespace} {
		ns.SetSysctl(w.tb, "ipv6/conf/"+Uplink+"/accept_dad", "0")
	}
	batch(w.Outside, "link set lo up", "link set "+Uplink+" up",
		fmt.Sprintf("addr add %s/24 dev %s", OutsideIPv4, Uplink),
		fmt.Sprintf("addr add %s/32 dev lo", InternetIPv4))
	batch(&w.Node.Namespace, "link set lo up", "link set "+Uplink+" up",
		fmt.Sprintf("addr add %s/24 dev %s", NodeIPv4, Uplink),
		fmt.Sprintf("route add default via %s", OutsideIPv4))
	if opts.NoIPv6 {
		return
	}
	batch(w.Outside, fmt.Sprintf("addr add %s/64 dev %s nodad", OutsideIPv6, Uplink),
		fmt.Sprintf("addr add %s/128 dev lo nodad", InternetIPv6))
	batch(&w.Node.Namespace, fmt.Sprintf("addr add %s/64 dev %s nodad", NodeIPv6, Uplink),
		fmt.Sprintf("route add default via %s", OutsideIPv6))
	w.Outside.awaitIPv6(w.tb, OutsideIPv6)
	w.Node.awaitIPv6(w.tb, NodeIPv6)
}

// awaitIPv6 waits until the kernel has found the uplink's carrier and made the
// address usable, which it does in a work queue.
func (ns *Namespace) awaitIPv6(tb testing.TB, addr netip.Addr) {
	tb.Helper()
	deadline := time.Now().Add(Timeout)
	for {
		local := ns.MustRun(tb, "ip", "-6", "route", "show", "table", "local")
		own := ns.MustRun(tb, "ip", "-6", "addr", "show", "dev", Uplink, "scope", "link", "-tentative")
		if strings.Contains(local, addr.String()) && strings.Contains(own, "fe80::") {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("address %s of %s does not become usable", addr, ns.Name)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// path names the network namespace for another process of the machine.
func (ns *Namespace) path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", pid, ns.net.Fd())
}
