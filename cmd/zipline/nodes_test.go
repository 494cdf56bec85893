// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"testing"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestTwoNodesThatShareMounts is a machine with simulated nodes that have one
// bpffs and one /run: each node is its network namespace.
func TestTwoNodesThatShareMounts(t *testing.T) {
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			second := top.container()
			config := network{}.config(v)
			fresh := top.Node.Snapshot(t)
			first := top.attachAll(network{}, 2)
			// Both nodes give out the same addresses under the same names.
			other := setKeys(config, map[string]any{"ipam": map[string]any{
				"type": "host-local", "dataDir": "/run/leases-of-second",
				"ranges": [][]map[string]string{{{"subnet": "10.77.0.0/16"}}, {{"subnet": "fd00:77::/64"}}},
			}})
			var there []*pod
			for _, p := range first {
				c := top.container()
				reply := top.on(t, second, "ADD", other, p.ID, c.Path)
				there = append(there, newPod(t, c, other, parseResult(t, reply)))
			}
			check := func(when string) {
				for _, pods := range [][]*pod{first, there} {
					for _, f := range families {
						if peer := reach(t, &pods[0].Namespace, &pods[1].Namespace, f.addr(pods[1])); peer != f.addr(pods[0]) {
							t.Errorf("%s: %s sees %s; want %s", when, pods[1].ID, peer, f.addr(pods[0]))
						}
					}
				}
			}
			check("with both nodes")
			top.on(t, second, "DEL", other, first[0].ID, there[0].Path)
			for _, f := range families {
				reach(t, &first[0].Namespace, &first[1].Namespace, f.addr(first[1]))
				reach(t, &first[1].Namespace, &first[0].Namespace, f.addr(first[0]))
			}
			top.on(t, second, "GC", gcConfig(other), "", "")
			mustSucceed(t, "CHECK", first[1].Invoke(t, "CHECK", withPrevResult(t, config, first[1].result)))
			mustSucceed(t, "GC", top.gc(gcConfig(config)))
			top.Node.MustRun(t, "rm", "-r", "/run/leases-of-second")
			top.wantNothingLeft(t, fresh)
		})
	}
}

// on executes the plugin in another network namespace with the node's mounts,
// and returns its stdout. It has to succeed.
func (top *topology) on(t *testing.T, node *testrig.Container, command, config, id, netns string) string {
	t.Helper()
	plugin := reference.BuildZipline(t)
	args := []string{"--net=" + node.Path, "env", "CNI_COMMAND=" + command, "CNI_PATH=" + reference.Plugins(t)}
	if id != "" {
		args = append(args, "CNI_CONTAINERID="+id, "CNI_NETNS="+netns, "CNI_IFNAME="+testrig.IfName)
	}
	return top.Node.MustRunInput(t, config, "nsenter", append(args, plugin)...)
}
