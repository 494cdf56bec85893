// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// setKeys changes keys of a JSON object; a nil value deletes one.
func setKeys(config string, keys map[string]any) string {
	return mustEdit(config, func(conf map[string]any) {
		maps.Copy(conf, keys)
		maps.DeleteFunc(conf, func(_ string, value any) bool { return value == nil })
	})
}

// deletions are the ways in which runtimes call DEL.
var deletions = []struct {
	name string
	// prepare changes the invocation, and the container if need be.
	prepare func(t *testing.T, p *pod, inv *testrig.Invocation)
}{
	{"with the result", func(t *testing.T, p *pod, inv *testrig.Invocation) {
		inv.Config = withPrevResult(t, p.config, p.result)
	}},
	{"without the result", func(*testing.T, *pod, *testrig.Invocation) {}},
	{"without a namespace", func(t *testing.T, p *pod, inv *testrig.Invocation) {
		inv.Netns = ""
		inv.Config = withPrevResult(t, p.config, p.result)
	}},
	{"without a namespace and a result", func(_ *testing.T, _ *pod, inv *testrig.Invocation) { inv.Netns = "" }},
	{"after the namespace's path is gone", func(t *testing.T, p *pod, _ *testrig.Invocation) { p.RemovePath(t) }},
	{"after the container died", func(t *testing.T, p *pod, _ *testrig.Invocation) { p.Kill(t) }},
	{"after the device is gone", func(t *testing.T, p *pod, _ *testrig.Invocation) {
		p.MustRun(t, "ip", "link", "del", testrig.IfName)
	}},
	{"with a path that leads to another namespace", func(t *testing.T, p *pod, inv *testrig.Invocation) {
		inv.Netns = "/proc/thread-self/ns/net"
	}},
	{"with broken keys", func(_ *testing.T, p *pod, inv *testrig.Invocation) {
		inv.Config = setKeys(p.config, map[string]any{"mtu": "big", "forwarding": "fast"})
	}},
}

// TestDeletionLeavesNothing holds DEL to the node's state before the first ADD,
// for each tier and each way to call it, twice.
func TestDeletionLeavesNothing(t *testing.T) {
	for _, v := range tiers {
		for _, d := range deletions {
			t.Run(v.name+" "+d.name, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				fresh := top.Node.Snapshot(t)
				first := top.attach(network{})
				beside := top.Node.Snapshot(t)
				p := top.attach(network{})
				inv := p.Invocation("DEL", p.config)
				d.prepare(t, p, &inv)
				for _, state := range []string{"first", "second"} {
					reply := top.Node.Invoke(t, inv)
					if err := reply.Err(); err != nil || reply.Stdout != "" {
						t.Errorf("%s DEL: %v, stdout %q", state, err, reply.Stdout)
					}
					if diff := beside.Diff(top.Node.Snapshot(t), staysOnNode...); len(diff) > 0 {
						t.Errorf("after the %s DEL the node differs from before ADD:\n%s", state, strings.Join(diff, "\n"))
					}
				}
				if err := first.Ping(first.gw4); err != nil {
					t.Errorf("the container that stays: %v", err)
				}
				top.del(first)
				top.wantNothingLeft(t, fresh)
				wantEmptyMaps(t, top)
			})
		}
	}
}

// TestDeletionOfWhatNeverWas is a runtime that cleans up after an ADD that it
// did not even start.
func TestDeletionOfWhatNeverWas(t *testing.T) {
	for name, config := range map[string]string{
		"a good configuration":       network{}.config(directTier),
		"a refused configuration":    setKeys(network{}.config(directTier), map[string]any{"vlan": 100}),
		"an L2 network":              setKeys(network{}.config(directTier), map[string]any{"ipam": nil}),
		"host-local without a range": setKeys(network{}.config(directTier), map[string]any{"ipam": map[string]any{"type": "host-local"}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, directTier, testrig.Options{})
			c := top.container()
			before := top.Node.Snapshot(t)
			reply := c.Invoke(t, "DEL", config)
			if err := reply.Err(); err != nil {
				t.Error(err)
			}
			top.wantNothingLeft(t, before)
		})
	}
}

// TestDeletionWithoutTheDelegate loses the IPAM plugin between ADD and DEL. DEL
// says so, as the address is still leased there, but removes all else; with the
// plugin back it succeeds.
func TestDeletionWithoutTheDelegate(t *testing.T) {
	dir := recordingIPAM(t)
	top := newTopology(t, directTier, testrig.Options{PluginPath: []string{dir}})
	fresh := top.Node.Snapshot(t)
	config := network{ipam: map[string]any{"type": "recorder"}}.config(top.v)
	p := top.add(top.container(), config)
	recorder := filepath.Join(dir, "recorder")
	if err := os.Rename(recorder, recorder+".gone"); err != nil {
		t.Fatal(err)
	}
	wantError(t, p.Invoke(t, "DEL", config), 106, "", "recorder")
	top.Node.MustRun(t, "rm", "/run/recorder")
	top.wantNothingLeft(t, fresh)
	if err := os.Rename(recorder+".gone", recorder); err != nil {
		t.Fatal(err)
	}
	mustSucceed(t, "DEL", p.Invoke(t, "DEL", config))
	if log := top.Node.MustRun(t, "cat", "/run/recorder"); !strings.HasPrefix(log, "DEL "+p.ID) {
		t.Errorf("the delegate got %q", log)
	}
}

// TestDeletionSparesOthers deletes by names that share parts with another
// attachment's.
func TestDeletionSparesOthers(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	p := top.attach(network{})
	before := top.Node.Snapshot(t)
	for _, change := range []func(inv *testrig.Invocation){
		func(inv *testrig.Invocation) { inv.ContainerID = "another" },
		func(inv *testrig.Invocation) { inv.IfName = "eth1" },
		conf(map[string]any{"name": "another"}),
		// A prevResult that claims this container's address.
		func(inv *testrig.Invocation) {
			inv.ContainerID, inv.Netns = "another", ""
			inv.Config = withPrevResult(t, p.config, p.result)
		},
	} {
		inv := p.Invocation("DEL", p.config)
		change(&inv)
		if err := top.Node.Invoke(t, inv).Err(); err != nil {
			t.Error(err)
		}
		if diff := before.Diff(top.Node.Snapshot(t), staysOnNode...); len(diff) > 0 {
			t.Errorf("DEL of another attachment changed:\n%s", strings.Join(diff, "\n"))
		}
	}
	for _, f := range families {
		reach(t, &p.Namespace, top.Outside, f.outside)
	}
}

// TestDeletionOfAnotherManagersAddresses has addresses that only the kernel
// knows, and a DEL that is told nothing: no namespace, no result, no device.
func TestDeletionOfAnotherManagersAddresses(t *testing.T) {
	static := map[string]any{"type": "static", "addresses": []map[string]string{
		{"address": "10.77.0.5/24", "gateway": "10.77.0.1"}, {"address": "fd00:77::5/64", "gateway": "fd00:77::1"},
	}}
	remove := map[string]func(t *testing.T, top *topology, p *pod){
		"by DEL": func(t *testing.T, top *topology, p *pod) {
			inv := p.Invocation("DEL", p.config)
			inv.Netns = ""
			if err := top.Node.Invoke(t, inv).Err(); err != nil {
				t.Error(err)
			}
		},
		"by GC": func(t *testing.T, _ *topology, p *pod) {
			config := setKeys(p.config, map[string]any{"cni.dev/valid-attachments": []any{}})
			mustSucceed(t, "GC", p.Invoke(t, "GC", config))
		},
	}
	for _, v := range tiers {
		for name, f := range remove {
			t.Run(v.name+" "+name, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				fresh := top.Node.Snapshot(t)
				p := top.attach(network{ipam: static})
				p.MustRun(t, "ip", "link", "del", testrig.IfName)
				f(t, top, p)
				top.wantNothingLeft(t, fresh)
				wantEmptyMaps(t, top)
			})
		}
	}
}

// wantEmptyMaps checks that no entry of any endpoint or uplink is left in the maps.
func wantEmptyMaps(t *testing.T, top *topology) {
	t.Helper()
	if top.v == kernelTier {
		return // it has none
	}
	for _, name := range []string{"endpoints", "devices", "uplinks"} {
		err := top.withMap(name, func(m *ebpf.Map) error {
			key := make([]byte, m.KeySize())
			if err := m.NextKey(nil, key); !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("first key left in %s: %x, %w", name, key, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
