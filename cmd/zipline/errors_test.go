// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// errorCase is an input that ADD has to refuse.
type errorCase struct {
	name    string
	code    uint
	details string // has to be part of the error's details
	msg     string // has to be part of its message
	change  func(inv *testrig.Invocation)
	// late says that the configuration alone does not show it, so that the node
	// may have got what it keeps.
	late bool
}

// conf changes keys of the configuration; nil deletes one.
func conf(keys map[string]any) func(*testrig.Invocation) {
	return func(inv *testrig.Invocation) {
		inv.Config = setKeys(inv.Config, keys)
	}
}

// ipamKeys changes keys inside ipam.
func ipamKeys(keys map[string]any) func(*testrig.Invocation) {
	return conf(map[string]any{"ipam": keys})
}

// one is a host-local configuration with a single range.
func one(keys map[string]any) map[string]any {
	return map[string]any{"type": "host-local", "ranges": [][]map[string]any{{keys}}}
}

var errorCases = []errorCase{
	// What the caller of the plugin gets wrong.
	{name: "no container id", code: 4, msg: "CNI_CONTAINERID", change: func(inv *testrig.Invocation) { inv.ContainerID = "" }},
	{name: "no interface name", code: 4, msg: "CNI_IFNAME", change: func(inv *testrig.Invocation) { inv.IfName = "" }},
	{name: "no namespace", code: 4, msg: "CNI_NETNS", change: func(inv *testrig.Invocation) { inv.Netns = "" }},
	{name: "an unknown command", code: 4, msg: "CNI_COMMAND", change: func(inv *testrig.Invocation) { inv.Command = "FLY" }},
	{name: "a bad container id", code: 4, details: "-c1", change: func(inv *testrig.Invocation) { inv.ContainerID = "-c1" }},
	{name: "an interface name that is too long", code: 4, change: func(inv *testrig.Invocation) { inv.IfName = "sixteencharacter" }},
	{name: "an interface name with a slash", code: 4, change: func(inv *testrig.Invocation) { inv.IfName = "eth/0" }},
	{name: "CNI_ARGS that are not pairs", code: 4, details: "CNI_ARGS", change: func(inv *testrig.Invocation) { inv.Args = "MAC" }},
	{name: "an unknown key in CNI_ARGS", code: 4, details: "CNI_ARGS", change: func(inv *testrig.Invocation) { inv.Args = "COLOUR=red" }},
	{name: "a namespace that does not exist", code: 8, details: "CNI_NETNS", change: func(inv *testrig.Invocation) { inv.Netns = "/run/netns/none" }},
	{name: "a namespace that is a plain file", code: 8, details: "CNI_NETNS", change: func(inv *testrig.Invocation) { inv.Netns = "/etc/passwd" }},
	{name: "a namespace that is no network namespace", code: 8, details: "CNI_NETNS", change: func(inv *testrig.Invocation) { inv.Netns = "/proc/self/ns/mnt" }},
	{name: "the node's own namespace", code: 8, details: "CNI_NETNS", change: func(inv *testrig.Invocation) { inv.Netns = "/proc/thread-self/ns/net" }},
	{name: "an interface that the container has", late: true, code: 100, details: "CNI_IFNAME", change: func(inv *testrig.Invocation) { inv.IfName = "lo" }},

	// What is wrong with the configuration as such.
	{name: "broken JSON", code: 6, change: func(inv *testrig.Invocation) { inv.Plugin, inv.Config = "zipline", inv.Config[:20] }},
	{name: "no name", code: 7, change: conf(map[string]any{"name": nil})},
	{name: "a bad name", code: 7, change: conf(map[string]any{"name": "a/b"})},
	{name: "an unsupported version", code: 1, details: "1.1.0", change: conf(map[string]any{"cniVersion": "9.9.9"})},

	// Keys of the bridge plugin.
	{name: "a bridge that is no string", code: 6, details: "bridge", change: conf(map[string]any{"bridge": 7})},
	{name: "an mtu that is no number", code: 6, details: "mtu", change: conf(map[string]any{"mtu": "big"})},
	{name: "an isGateway that is no bool", code: 6, details: "isGateway", change: conf(map[string]any{"isGateway": "yes"})},
	{name: "a negative mtu", code: 7, details: "mtu", change: conf(map[string]any{"mtu": -1})},
	{name: "an mtu above the kernel's limit", code: 7, details: "mtu", change: conf(map[string]any{"mtu": 65536})},
	{name: "an mtu too small for IPv6", late: true, code: 7, details: "mtu", change: conf(map[string]any{"mtu": 1000})},
	{name: "hairpinMode with promiscMode", code: 7, details: "hairpinMode", msg: "hairpin",
		change: conf(map[string]any{"hairpinMode": true, "promiscMode": true})},
	{name: "an unknown ipMasqBackend", code: 7, details: "ipMasqBackend", msg: `"ebpf"`, change: conf(map[string]any{"ipMasqBackend": "ebpf"})},
	{name: "a vlan out of range", code: 7, details: "vlan", msg: "5000", change: conf(map[string]any{"vlan": 5000})},
	{name: "a vlanTrunk out of range", code: 7, details: "vlanTrunk", change: conf(map[string]any{"vlanTrunk": []map[string]int{{"id": 5000}}})},
	{name: "a vlanTrunk with half a range", code: 7, details: "vlanTrunk", change: conf(map[string]any{"vlanTrunk": []map[string]int{{"minID": 5}}})},
	{name: "a vlan, which needs an L2 network", code: 2, details: "vlan", msg: "not", change: conf(map[string]any{"vlan": 100})},
	{name: "a vlanTrunk, which needs an L2 network", code: 2, details: "vlanTrunk", change: conf(map[string]any{"vlanTrunk": []map[string]int{{"id": 5}}})},
	{name: "no ipam, which is an L2 network", code: 2, details: "ipam", change: conf(map[string]any{"ipam": nil})},
	{name: "disableContainerInterface with ipam", code: 7, details: "disableContainerInterface",
		change: conf(map[string]any{"disableContainerInterface": true})},
	{name: "a bad MAC in CNI_ARGS", code: 7, details: "MAC", change: func(inv *testrig.Invocation) { inv.Args = "MAC=zz" }},
	{name: "a bad MAC in runtimeConfig", code: 7, details: "runtimeConfig.mac", change: conf(map[string]any{"runtimeConfig": map[string]any{"mac": "zz"}})},
	{name: "a multicast MAC", code: 7, details: "args.cni.mac", change: conf(map[string]any{"args": map[string]any{"cni": map[string]any{"mac": "01:00:00:00:00:01"}}})},

	// Keys of zipline.
	{name: "an unknown forwarding", code: 7, details: "forwarding", msg: `"fast"`, change: conf(map[string]any{"forwarding": "fast"})},
	{name: "a forwarding that is no string", code: 6, details: "forwarding", change: conf(map[string]any{"forwarding": true})},
	{name: "an unknown bigTCP", code: 7, details: "bigTCP", change: conf(map[string]any{"bigTCP": "huge"})},
	{name: "a sourceCheck that is no bool", code: 6, details: "sourceCheck", change: conf(map[string]any{"sourceCheck": "no"})},
	{name: "a bad prefix in nonMasqueradeCIDRs", code: 7, details: "nonMasqueradeCIDRs", msg: "10.0.0.0/33",
		change: conf(map[string]any{"nonMasqueradeCIDRs": []string{"10.0.0.0/33"}})},
	{name: "nonMasqueradeCIDRs without ipMasq", code: 7, details: "nonMasqueradeCIDRs",
		change: conf(map[string]any{"ipMasq": false, "nonMasqueradeCIDRs": []string{"10.0.0.0/8"}})},
	{name: "a bad egressIP", code: 7, details: "egressIP", change: conf(map[string]any{"egressIP": "here"})},
	{name: "two egressIPs of one family", code: 7, details: "egressIP", change: conf(map[string]any{"egressIP": []string{"192.0.2.50", "192.0.2.51"}})},
	{name: "an egressIP without ipMasq", code: 7, details: "egressIP", change: conf(map[string]any{"ipMasq": false, "egressIP": "192.0.2.50"})},
	{name: "a random port for a fixed address", code: 7, details: "masqueradeFullyRandom",
		change: conf(map[string]any{"egressIP": "192.0.2.50", "masqueradeFullyRandom": true})},

	// IPAM.
	{name: "host-local without a range", code: 7, details: "ipam", change: ipamKeys(map[string]any{"type": "host-local"})},
	{name: "a subnet that is none", code: 7, details: "subnet", change: ipamKeys(one(map[string]any{"subnet": "everything"}))},
	{name: "a subnet with host bits", code: 7, details: "subnet", change: ipamKeys(one(map[string]any{"subnet": "10.1.2.3/24"}))},
	{name: "a subnet that is too small", code: 7, details: "subnet", change: ipamKeys(one(map[string]any{"subnet": "10.1.2.0/31"}))},
	{name: "a rangeStart outside the subnet", code: 7, details: "rangeStart", change: ipamKeys(one(map[string]any{"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1"}))},
	{name: "a rangeEnd outside the subnet", code: 7, details: "rangeEnd", change: ipamKeys(one(map[string]any{"subnet": "10.1.2.0/24", "rangeEnd": "10.1.3.1"}))},
	{name: "a requested address that no range has", late: true, code: 7, details: "ip", msg: "10.99.0.1", change: conf(map[string]any{"args": map[string]any{"cni": map[string]any{"ips": []string{"10.99.0.1"}}}})},
	{name: "a delegate that is not installed", late: true, code: 50, msg: "no-such-ipam", change: ipamKeys(map[string]any{"type": "no-such-ipam"})},
	{name: "a route that cannot be added", late: true, code: 7, details: "routes", msg: "192.168.99.1", change: ipamKeys(map[string]any{
		"type": "host-local", "ranges": [][]map[string]string{{{"subnet": "10.77.0.0/16"}}},
		"routes": []map[string]string{{"dst": "10.0.0.0/8", "gw": "192.168.99.1"}},
	})},
	{name: "a route that is none", code: 7, details: "routes", change: ipamKeys(map[string]any{
		"type": "host-local", "ranges": [][]map[string]string{{{"subnet": "10.77.0.0/16"}}}, "routes": []map[string]string{{"dst": "there"}},
	})},
}

// TestBadInputIsRefusedWithNothingCreated gives ADD each bad input on a fresh
// node, on which not even what every ADD makes may appear.
func TestBadInputIsRefusedWithNothingCreated(t *testing.T) {
	for _, c := range errorCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, directTier, testrig.Options{})
			container := top.container()
			before := top.Node.Snapshot(t)
			inv := container.Invocation("ADD", network{}.config(top.v))
			c.change(&inv)
			reply := top.Node.Invoke(t, inv)
			wantError(t, reply, c.code, c.details, c.msg)
			if c.late {
				top.wantNothingLeft(t, before)
			} else {
				top.wantUnchanged(t, before)
			}
			if links := container.MustRun(t, "ip", "-br", "link"); strings.Contains(links, "\n") {
				t.Errorf("the container has devices:\n%s", links)
			}
		})
	}
}

// wantError compares an error object.
func wantError(t *testing.T, reply testrig.Reply, code uint, details, msg string) {
	t.Helper()
	if reply.Error == nil {
		t.Fatalf("no error object: exit code %d, stdout %q, stderr %q", reply.ExitCode, reply.Stdout, reply.Stderr)
	}
	if reply.Error.Code != code {
		t.Errorf("code %d; want %d: %s", reply.Error.Code, code, describe(reply.Error))
	}
	if !strings.Contains(reply.Error.Details, details) {
		t.Errorf("details do not name %q: %s", details, describe(reply.Error))
	}
	if !strings.Contains(reply.Error.Msg, msg) {
		t.Errorf("message does not name %q: %s", msg, describe(reply.Error))
	}
	for _, banned := range []string{"failed to", "unable to", "could not"} {
		if code > 99 && strings.Contains(strings.ToLower(reply.Error.Msg), banned) {
			t.Errorf("message says %q: %s", banned, describe(reply.Error))
		}
	}
}

func describe(err *types.Error) string {
	return fmt.Sprintf("code %d, msg %q, details %q", err.Code, err.Msg, err.Details)
}

// TestTakenThings are the errors that need another container first.
func TestTakenThings(t *testing.T) {
	t.Run("an interface that an earlier ADD made", func(t *testing.T) {
		t.Parallel()
		top := newTopology(t, directTier, testrig.Options{})
		pods := top.attachAll(network{}, 2)
		before := top.Node.Snapshot(t)
		wantError(t, pods[0].Invoke(t, "ADD", pods[0].config), 100, "CNI_IFNAME", "eth0")
		top.wantUnchanged(t, before)
		reach(t, &pods[1].Namespace, &pods[0].Namespace, pods[0].v4)
	})
	t.Run("a requested address that another container has", func(t *testing.T) {
		t.Parallel()
		top := newTopology(t, directTier, testrig.Options{})
		pods := top.attachAll(network{}, 2)
		before := top.Node.Snapshot(t)
		late := top.container()
		inv := late.Invocation("ADD", pods[0].config)
		inv.Args = "IP=" + pods[0].v4.String()
		wantError(t, top.Node.Invoke(t, inv), 101, "ipam", pods[0].v4.String())
		top.wantUnchanged(t, before)
		reach(t, &pods[1].Namespace, &pods[0].Namespace, pods[0].v4)
	})
	t.Run("an address that a delegate gives twice", func(t *testing.T) {
		t.Parallel()
		top := newTopology(t, directTier, testrig.Options{})
		fixed := network{ipam: map[string]any{"type": "static", "addresses": []map[string]string{{"address": "10.77.0.50/16", "gateway": "10.77.0.1"}}}}
		first, other := top.attach(fixed), top.attach(network{v6: "-"})
		before := top.Node.Snapshot(t)
		wantError(t, top.container().Invoke(t, "ADD", fixed.config(top.v)), 101, "10.77.0.50", "10.77.0.50")
		top.wantUnchanged(t, before)
		reach(t, &other.Namespace, &first.Namespace, first.v4)
	})
	t.Run("a pool without a free address", func(t *testing.T) {
		t.Parallel()
		top := newTopology(t, directTier, testrig.Options{})
		small := network{v4: "10.77.0.0/29", v6: "-"}
		top.attachAll(small, 5)
		before := top.Node.Snapshot(t)
		wantError(t, top.container().Invoke(t, "ADD", small.config(top.v)), 11, "ipam", "10.77.0.")
		top.wantUnchanged(t, before)
	})
}
