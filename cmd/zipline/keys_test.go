// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

func TestMTUIsSetOnBothEnds(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	p := top.attach(network{keys: map[string]any{"mtu": 1400}})
	for ns, device := range map[*testrig.Namespace]string{&p.Namespace: testrig.IfName, &top.Node.Namespace: hostDevice(p)} {
		if got := ns.MustRun(t, "ip", "-o", "link", "show", device); !strings.Contains(got, " mtu 1400 ") {
			t.Errorf("%s in %s: %s; want mtu 1400", device, ns.Name, got)
		}
	}
}

func TestMACComesFromTheFirstPlaceThatHasOne(t *testing.T) {
	args := func(mac string) map[string]any { return map[string]any{"cni": map[string]any{"mac": mac}} }
	runtime := func(mac string) map[string]any { return map[string]any{"mac": mac} }
	for _, c := range []struct {
		name, env string
		keys      map[string]any
		want      string
	}{
		{"CNI_ARGS", "MAC=02:00:00:00:00:01", nil, "02:00:00:00:00:01"},
		{"args.cni before CNI_ARGS", "MAC=02:00:00:00:00:01", map[string]any{"args": args("02:00:00:00:00:02")}, "02:00:00:00:00:02"},
		{"runtimeConfig before args.cni", "MAC=02:00:00:00:00:01",
			map[string]any{"args": args("02:00:00:00:00:02"), "runtimeConfig": runtime("02:00:00:00:00:03")}, "02:00:00:00:00:03"},
		{"keys in another case", "", map[string]any{"RuntimeConfig": runtime("02:00:00:00:00:03")}, "02:00:00:00:00:03"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, directTier, testrig.Options{})
			other := top.attach(network{})
			inv := top.container().Invocation("ADD", network{keys: c.keys}.config(top.v))
			inv.Args = c.env
			reply := top.Node.Invoke(t, inv)
			if err := reply.Err(); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(reply.Stdout, c.want) {
				t.Errorf("result does not have %s:\n%s", c.want, reply.Stdout)
			}
			for _, addr := range testrig.Addresses(parseResult(t, reply.Stdout)) {
				if err := other.Ping(addr); err != nil {
					t.Error(err)
				}
			}
			// The device is the second container's.
			if got := top.Node.MustRun(t, "nsenter", "--net="+inv.Netns, "ip", "-o", "link", "show", inv.IfName); !strings.Contains(got, c.want) {
				t.Errorf("container has %s; want %s", got, c.want)
			}
		})
	}
}

// TestContainerSettingsAreTheReferences compares every sysctl of a container.
func TestContainerSettingsAreTheReferences(t *testing.T) {
	for name, keys := range map[string]map[string]any{
		"by default": nil, "with enabledad": {"enabledad": true}, "without a gateway": {"isDefaultGateway": false, "ipMasq": false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := func(v variant) []string {
				top := newTopology(t, v, testrig.Options{})
				p := top.attach(network{keys: keys})
				text := p.MustRun(t, "sh", "-c", "cd /proc/sys/net; grep -r . ipv4 ipv6 2>/dev/null | sort")
				return deleteMatching(strings.Split(text, "\n"), regexp.MustCompile(`^ipv6/conf/[^:]*/stable_secret|^ipv[46]/neigh/`))
			}
			want := settings(bridge)
			for _, v := range tiers {
				got := settings(v)
				for _, line := range got {
					// The node knows a container's MAC by more than learning, so a
					// container that changes it has to say so.
					if !slices.Contains(want, line) && line != "ipv6/conf/eth0/ndisc_notify:1" {
						t.Errorf("%s: %s is not so with the reference", v.name, line)
					}
				}
			}
		})
	}
}

// TestKeysThatOnlyABridgeHas are accepted and need nothing.
func TestKeysThatOnlyABridgeHas(t *testing.T) {
	for _, keys := range []map[string]any{
		{"promiscMode": true}, {"hairpinMode": true}, {"forceAddress": true}, {"ipMasqBackend": "iptables"}, {"ipMasqBackend": "nftables"},
		{"vlan": 0}, {"vlanTrunk": []any{}}, {"preserveDefaultVlan": true}, {"noSuchKey": map[string]any{"a": 1}},
		{"capabilities": map[string]bool{"mac": true}},
	} {
		t.Run(toJSON(keys), func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, directTier, testrig.Options{})
			pods := top.attachAll(network{keys: keys}, 2)
			reach(t, &pods[0].Namespace, &pods[1].Namespace, pods[1].v4)
			reach(t, &pods[0].Namespace, top.Outside, testrig.InternetIPv4)
		})
	}
}

func TestKubeletsArgumentsAreAccepted(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	inv := top.container().Invocation("ADD", network{}.config(top.v))
	inv.Args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=1-2-3"
	inv.Env = []string{"TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	if err := top.Node.Invoke(t, inv).Err(); err != nil {
		t.Error(err)
	}
}

func TestPrevResultIsIgnoredOnADD(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	first := top.attach(network{})
	reply := top.container().Invoke(t, "ADD", withPrevResult(t, first.config, first.result))
	if err := reply.Err(); err != nil {
		t.Fatal(err)
	}
	if got := parseResult(t, reply.Stdout); len(got.IPs) != 2 || got.IPs[0].Address.IP.Equal(first.result.IPs[0].Address.IP) {
		t.Errorf("result takes over the earlier one:\n%s", reply.Stdout)
	}
}

// TestAContainerOnTwoNetworks is what multus does.
func TestAContainerOnTwoNetworks(t *testing.T) {
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			side := network{name: "side", segment: "seg1", v4: "10.78.0.0/16", v6: "fd00:78::/64", keys: map[string]any{"isDefaultGateway": false}}
			both := top.attach(network{})
			fresh := top.Node.Snapshot(t)
			inv := both.Invocation("ADD", side.config(v))
			inv.IfName = "net1"
			reply := top.Node.Invoke(t, inv)
			if err := reply.Err(); err != nil {
				t.Fatal(err)
			}
			second := newPod(t, both.Container, inv.Config, parseResult(t, reply.Stdout))
			neighbour := top.attach(side)
			for _, f := range families {
				if peer := reach(t, &both.Namespace, &neighbour.Namespace, f.addr(neighbour)); peer != f.addr(second) {
					t.Errorf("%s: the neighbour sees %s; want %s", f.name, peer, f.addr(second))
				}
				reach(t, &both.Namespace, top.Outside, f.outside)
			}
			top.del(neighbour)
			inv.Command = "DEL"
			mustSucceed(t, "DEL", top.Node.Invoke(t, inv))
			top.wantNothingLeft(t, fresh)
			reach(t, &both.Namespace, top.Outside, testrig.InternetIPv4)
		})
	}
}

func TestHostDeviceSaysWhoseItIs(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	p := top.attach(network{})
	link := top.Node.MustRun(t, "ip", "link", "show", hostDevice(p))
	for _, want := range []string{"net", p.ID, testrig.IfName} {
		if _, alias, ok := strings.Cut(link, "alias "); !ok || !strings.Contains(alias, want) {
			t.Errorf("no %q in the alias of\n%s", want, link)
		}
	}
	if !regexp.MustCompile(`^zl[0-9a-z]{13}$`).MatchString(hostDevice(p)) {
		t.Errorf("host device is named %q", hostDevice(p))
	}
}

// TestNoHelperIsExecuted puts decoys in the way of every helper program.
func TestNoHelperIsExecuted(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	var decoys strings.Builder
	for _, helper := range []string{"nft", "ip", "iptables", "ip6tables", "iptables-nft", "tc", "sysctl", "bpftool", "conntrack", "ebtables", "modprobe", "mount", "sh"} {
		_, _ = fmt.Fprintf(&decoys, "printf '#!/bin/sh\\necho %[1]s >> /run/executed\\n' > /run/decoys/%[1]s; chmod +x /run/decoys/%[1]s\n", helper)
	}
	top.Node.MustRun(t, "sh", "-c", "mkdir /run/decoys\n"+decoys.String())
	c := top.container()
	config := network{}.config(top.v)
	result := ""
	for _, command := range []string{"ADD", "CHECK", "STATUS", "GC", "DEL"} {
		inv := c.Invocation(command, gcConfig(config, &pod{Container: c}))
		if result != "" {
			inv.Config = withPrevResult(t, inv.Config, parseResult(t, result))
		}
		inv.Env = []string{"PATH=/run/decoys"}
		reply := top.Node.Invoke(t, inv)
		mustSucceed(t, command, reply)
		if command == "ADD" {
			result = reply.Stdout
		}
	}
	if executed, err := top.Node.Run("cat", "/run/executed"); err == nil {
		t.Errorf("executed: %s", executed)
	}
}
