// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestLeasesAreHostLocals runs the reference host-local and the built-in one in
// turns in one directory: both have to see what the other leased and released.
func TestLeasesAreHostLocals(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	built, executed := network{}.config(top.v), network{ipam: map[string]any{"inProcess": false}}.config(top.v)
	var pods []*pod
	for i := range 6 {
		config := built
		if i%2 == 1 {
			config = executed
		}
		pods = append(pods, top.add(top.container(), config))
	}
	for i, p := range pods {
		if want := netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 2)}); p.v4 != want {
			t.Errorf("container %d has %s; want %s", i, p.v4, want)
		}
		got := top.Node.MustRun(t, "cat", "-A", "/var/lib/cni/networks/net/"+p.v4.String())
		if want := p.ID + "^M$\neth0"; got != want {
			t.Errorf("lease of %s is %q; want %q", p.v4, got, want)
		}
	}
	// Each releases what the other leased.
	for i, p := range pods {
		p.config = built
		if i%2 == 0 {
			p.config = executed
		}
		mustSucceed(t, "CHECK", p.Invoke(t, "CHECK", withPrevResult(t, p.config, p.result)))
		top.del(p)
	}
	if left := top.Node.MustRun(t, "find", "/var/lib/cni/networks/net", "-name", "10.*"); left != "" {
		t.Errorf("leases are left: %s", left)
	}
	// The round robin goes on where the other stood.
	if p := top.attach(network{}); p.v4 != netip.MustParseAddr("10.77.0.8") {
		t.Errorf("the next container has %s; want 10.77.0.8", p.v4)
	}
}

// TestMigrationFromBridge moves a network to zipline and back while a container
// of the other plugin still holds its lease.
func TestMigrationFromBridge(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	old := top.add(top.container(), network{}.config(bridge))
	moved := newPod(t, old.Container, old.config, old.result)
	mustSucceed(t, "DEL", old.Invoke(t, "DEL", withPrevResult(t, old.config, old.result)))
	stays := top.add(top.container(), network{segment: "br9"}.config(bridge))
	top.Node.MustRun(t, "ip", "link", "del", "seg0")
	moved = top.add(moved.Container, network{}.config(top.v))
	if moved.v4 == stays.v4 {
		t.Errorf("both have %s", moved.v4)
	}
	top.del(moved)
	back := top.add(top.container(), network{segment: "br9"}.config(bridge))
	if back.v4 == stays.v4 || back.v4 == moved.v4 {
		t.Errorf("the address %s was not the next free one", back.v4)
	}
}

func TestRequestedAddresses(t *testing.T) {
	want := "10.77.0.99"
	for _, c := range []struct {
		name, env string
		keys      map[string]any
	}{
		{"CNI_ARGS", "IgnoreUnknown=1;IP=10.77.0.99", nil},
		{"args.cni.ips", "", map[string]any{"args": map[string]any{"cni": map[string]any{"ips": []string{want}}}}},
		{"runtimeConfig.ips", "", map[string]any{"capabilities": map[string]bool{"ips": true}, "runtimeConfig": map[string]any{"ips": []string{want}}}},
		// Two IPv4 gateways are more than the reference's bridge can have.
		{"runtimeConfig.ipRanges", "", map[string]any{"isDefaultGateway": false, "runtimeConfig": map[string]any{
			"ipRanges": [][]map[string]string{{{"subnet": "10.79.0.0/16", "rangeStart": "10.79.0.99"}}},
		}}},
	} {
		for _, v := range []variant{bridge, directTier} {
			t.Run(c.name+" "+v.name, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				inv := top.container().Invocation("ADD", network{v6: "-", keys: c.keys}.config(v))
				inv.Args = c.env
				reply := top.Node.Invoke(t, inv)
				if err := reply.Err(); err != nil {
					t.Fatal(err)
				}
				first := testrig.Addresses(parseResult(t, reply.Stdout))[0].String()
				if first != want && first != "10.79.0.99" {
					t.Errorf("first address %s; want the requested one", first)
				}
			})
		}
	}
}

func TestResolvConfBecomesDNS(t *testing.T) {
	for _, v := range []variant{bridge, directTier} {
		top := newTopology(t, v, testrig.Options{})
		top.Node.MustRunInput(t, "nameserver 192.0.2.53\nsearch example.net\noptions ndots:3\n", "tee", "/run/resolv.conf")
		p := top.attach(network{ipam: map[string]any{"resolvConf": "/run/resolv.conf"}})
		if got := toJSON(p.result.DNS); got != `{"nameservers":["192.0.2.53"],"search":["example.net"],"options":["ndots:3"]}` {
			t.Errorf("%s: dns %s", v.name, got)
		}
	}
}

// TestFourAddresses leases from four range sets, two of a family.
func TestFourAddresses(t *testing.T) {
	for _, v := range []variant{bridge, kernelTier, directTier} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			var ranges [][]map[string]string
			for _, subnet := range []string{"10.77.0.0/16", "fd00:77::/64", "10.80.0.0/16", "fd00:80::/64"} {
				ranges = append(ranges, []map[string]string{{"subnet": subnet}})
			}
			n := network{keys: map[string]any{"isDefaultGateway": false, "isGateway": true, "forceAddress": v == bridge}, ipam: map[string]any{"ranges": ranges}}
			if v == bridge {
				// It cannot have two IPv4 gateways on one bridge.
				n.keys["isGateway"], n.keys["ipMasq"] = false, false
			}
			pods := top.attachAll(n, 2)
			addrs := testrig.Addresses(pods[1].result)
			if len(addrs) != 4 {
				t.Fatalf("addresses %v; want four", addrs)
			}
			for _, addr := range addrs {
				reach(t, &pods[0].Namespace, &pods[1].Namespace, addr)
			}
		})
	}
}

// TestRoundRobinFollowsTheReference leases, releases and leases again with both
// programs and compares the addresses.
func TestRoundRobinFollowsTheReference(t *testing.T) {
	var sequences []string
	for _, v := range []variant{bridge, directTier} {
		top := newTopology(t, v, testrig.Options{})
		small := network{v4: "10.77.0.0/28", v6: "-"}
		var got []string
		var pods []*pod
		for round := range 20 {
			if len(pods) > 3 {
				top.del(pods[round%3])
				pods = append(pods[:round%3], pods[round%3+1:]...)
			}
			pods = append(pods, top.attach(small))
			got = append(got, pods[len(pods)-1].v4.String())
		}
		sequences = append(sequences, strings.Join(got, " "))
	}
	if sequences[0] != sequences[1] {
		t.Errorf("zipline:   %s\nreference: %s", sequences[1], sequences[0])
	}
}
