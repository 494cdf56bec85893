// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// gcConfig is what libcni gives GC: the network and what is valid of it.
func gcConfig(config string, valid ...*pod) string {
	list := []map[string]string{}
	for _, p := range valid {
		list = append(list, map[string]string{"containerID": p.ID, "ifname": testrig.IfName})
	}
	return setKeys(config, map[string]any{"cni.dev/valid-attachments": list, "cni.dev/attachments": list})
}

// gc executes GC as a runtime does, without a container's variables.
func (top *topology) gc(config string) testrig.Reply {
	top.tb.Helper()
	return top.Node.Invoke(top.tb, testrig.Invocation{Command: "GC", Config: config})
}

func TestGCRemovesWhatIsNotValidAndNothingElse(t *testing.T) {
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			fresh := top.Node.Snapshot(t)
			other := top.attach(network{name: "other", segment: "seg1", v4: "10.78.0.0/16", v6: "fd00:78::/64"})
			stays := top.attach(network{})
			want := top.Node.Snapshot(t)
			dead, forgotten, halved := top.attach(network{}), top.attach(network{}), top.attach(network{})
			dead.Kill(t)
			halved.MustRun(t, "ip", "link", "del", testrig.IfName)
			if err := top.gc(gcConfig(stays.config, stays)).Err(); err != nil {
				t.Error(err)
			}
			if diff := want.Diff(top.Node.Snapshot(t), staysOnNode...); len(diff) > 0 {
				t.Errorf("after GC the node differs from before the ADDs:\n%s", strings.Join(diff, "\n"))
			}
			if links := forgotten.MustRun(t, "ip", "-br", "link"); strings.Contains(links, testrig.IfName) {
				t.Errorf("the forgotten container has devices:\n%s", links)
			}
			for _, f := range families {
				reach(t, &stays.Namespace, top.Outside, f.outside)
				reach(t, &stays.Namespace, &other.Namespace, f.addr(other))
			}
			for range 2 {
				if err := top.gc(gcConfig(stays.config)).Err(); err != nil {
					t.Error(err)
				}
			}
			if err := top.gc(gcConfig(other.config)).Err(); err != nil {
				t.Error(err)
			}
			top.wantNothingLeft(t, fresh)
		})
	}
}

func TestGCWithoutAListRemovesNothing(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	p := top.attach(network{})
	before := top.Node.Snapshot(t)
	wantError(t, top.gc(p.config), 7, "cni.dev/valid-attachments", "cni.dev/valid-attachments")
	top.wantUnchanged(t, before)
}

func TestGCOnAFreshNodeLeavesNothing(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	before := top.Node.Snapshot(t)
	if err := top.gc(gcConfig(network{}.config(directTier))).Err(); err != nil {
		t.Error(err)
	}
	top.wantNothingLeft(t, before)
}

func TestGCByARuntime(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	fresh := top.Node.Snapshot(t)
	runtime := testrig.NewRuntime(t, top.Node, network{}.config(directTier))
	stays, goes := top.container(), top.container()
	for _, c := range []*testrig.Container{stays, goes} {
		if _, err := runtime.Add(c, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := runtime.GC(stays); err != nil {
		t.Error(err)
	}
	if err := runtime.Check(stays, nil); err != nil {
		t.Error(err)
	}
	if links := goes.MustRun(t, "ip", "-br", "link"); strings.Contains(links, testrig.IfName) {
		t.Errorf("the container that is not valid has devices:\n%s", links)
	}
	if err := runtime.GC(); err != nil {
		t.Error(err)
	}
	top.wantNothingLeft(t, fresh)
}

// TestDelegatesGetTheVerbs chains an IPAM plugin that records what it is given.
func TestDelegatesGetTheVerbs(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{PluginPath: []string{recordingIPAM(t)}})
	config := network{ipam: map[string]any{"type": "recorder"}}.config(directTier)
	p := top.add(top.container(), config)
	for _, command := range []string{"CHECK", "STATUS", "DEL"} {
		if err := p.Invoke(t, command, withPrevResult(t, config, p.result)).Err(); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
	if err := top.gc(gcConfig(config, p)).Err(); err != nil {
		t.Error(err)
	}
	log := top.Node.MustRun(t, "cat", "/run/recorder")
	for _, want := range []string{"ADD c1 eth0 ", "CHECK c1 eth0 ", "STATUS", "DEL c1 eth0 ", "GC"} {
		if !strings.Contains(log, want) {
			t.Errorf("the delegate did not get %q:\n%s", want, log)
		}
	}
	if !strings.Contains(log, `"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]`) {
		t.Errorf("the delegate's GC got no valid attachments:\n%s", log)
	}
}
