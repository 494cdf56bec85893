// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// leftovers runs gc and returns what it lists, by kind.
func (w *steerWorld) leftovers(args ...string) map[string][]string {
	w.tb.Helper()
	var list []leftoverJSON
	w.ctlJSON(&list, append([]string{"gc"}, args...)...)
	kinds := map[string][]string{}
	for _, l := range list {
		kinds[l.Kind] = append(kinds[l.Kind], l.Object)
	}
	return kinds
}

func TestGCRemovesWhatADeadContainerLeft(t *testing.T) {
	w := newSteerWorld(t)
	config := steerConfig(map[string]any{"macspoofchk": true})
	clean := w.Node.Snapshot(t)
	a, b := w.attach(config, false), w.attach(config, false)
	if found := w.leftovers(); len(found) != 0 {
		t.Fatalf("gc with living containers removes %v", found)
	}
	b.Kill(t) // without DEL
	w.Node.MustRun(t, "sh", "-c", "while ip link show dev "+b.device+" 2>/dev/null; do sleep 0.05; done")
	// A node of a namespace that ended, and a lease of another plugin's network.
	w.Node.MustRun(t, "sh", "-c", `mkdir -p /run/zipline/999999999 /sys/fs/bpf/zipline/999999999/v2 /var/lib/cni/networks/others
		printf 'other\r\neth0' >/var/lib/cni/networks/others/10.99.0.2`)

	before := w.Node.Snapshot(t)
	would := w.leftovers("--dry-run")
	if diff := before.Diff(w.Node.Snapshot(t)); len(diff) != 0 {
		t.Errorf("gc --dry-run changed the node:\n%s", strings.Join(diff, "\n"))
	}
	removed := w.leftovers()
	for kind, want := range map[string][]string{
		"lease":   {"net " + b.v4.String(), "net " + b.v6.String()},
		"element": {"source4 " + b.v4.String(), "source6 " + b.v6.String()},
		"entry":   {"endpoints " + b.v4.String(), "endpoints " + b.v6.String()},
		"node":    {"/run/zipline/999999999", "/sys/fs/bpf/zipline/999999999"},
	} {
		for _, object := range want {
			if !slices.Contains(removed[kind], object) {
				t.Errorf("gc removed %v, want %s %s", removed, kind, object)
			}
		}
		if !slices.Equal(removed[kind], would[kind]) {
			t.Errorf("gc removed %s %v, and --dry-run said %v", kind, removed[kind], would[kind])
		}
	}
	if again := w.leftovers(); len(again) != 0 {
		t.Errorf("a second gc removes %v", again)
	}
	if err := w.Outside.Ping(a.v4); err == nil {
		t.Error("the outside reaches a container address: the rig is broken")
	}
	if err := a.Ping(testrig.InternetIPv4); err != nil {
		t.Errorf("the living container lost its network: %v", err)
	}
	a.Kill(t)
	w.Node.MustRun(t, "sh", "-c", "while ip link show dev "+a.device+" 2>/dev/null; do sleep 0.05; done")
	if found := w.leftovers(); len(found["guard"]) != 2 || len(found["lease"]) != 2 {
		t.Errorf("after the last container gc removes %v, want its leases and the guards", found)
	}
	for _, line := range clean.Diff(w.Node.Snapshot(t)) {
		if strings.HasPrefix(line, "+ route") && !strings.Contains(line, "anycast") || strings.Contains(line, "element ") || strings.HasPrefix(line, "+ neighbour") {
			t.Errorf("left on the node: %s", line)
		}
	}
	if out := w.Node.MustRun(t, "cat", "/var/lib/cni/networks/others/10.99.0.2"); !strings.Contains(out, "other") {
		t.Errorf("the lease of another plugin is %q", out)
	}
}
