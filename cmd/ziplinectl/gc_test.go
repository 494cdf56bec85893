// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
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

// hostLocalAdd leases with the real host-local, and returns the addresses.
func (w *steerWorld) hostLocalAdd(tb testing.TB, config, id string) []string {
	tb.Helper()
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	out := w.Node.MustRun(tb, "env", "CNI_COMMAND=ADD", "CNI_CONTAINERID="+id, "CNI_IFNAME=eth0", "CNI_NETNS=/none", "CNI_PATH=/none",
		"sh", "-c", "printf %s '"+config+"' | "+filepath.Join(reference.Plugins(tb), "host-local"))
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		tb.Fatalf("host-local printed %q: %v", out, err)
	}
	var addresses []string
	for _, ip := range result.IPs {
		addresses = append(addresses, ip.Address.Addr().String())
	}
	if len(addresses) != 2 {
		tb.Fatalf("host-local leased %v", addresses)
	}
	return addresses
}

func TestGCRemovesWhatADeadContainerLeft(t *testing.T) {
	w := newSteerWorld(t)
	config := steerConfig(map[string]any{"macspoofchk": true})
	clean := w.Node.Snapshot(t)
	a, b := w.attach(config, false), w.attach(config, false)
	if found := w.leftovers(); len(found) != 0 {
		t.Fatalf("gc with living containers removes %v", found)
	}
	object := filepath.Join(testutil.RepoRoot(t), "loader/prog/testdata/marks.o")
	for device, pin := range map[string]string{a.device: "lives", b.device: "dies"} {
		w.mustCtl("prog", "attach", object, "--program", "mark_a", "--dev", device, "--ingress", "--pin", pin)
	}
	b.Kill(t) // without DEL
	w.Node.MustRun(t, "sh", "-c", "while ip link show dev "+b.device+" 2>/dev/null; do sleep 0.05; done")
	// A node of a namespace that ended, and a lease of another plugin's network.
	// And one of the same network that host-local makes: for a plugin whose devices
	// are none of ours, or whose ADD is not done yet.
	theirs := w.hostLocalAdd(t, config, "their-container")
	w.Node.MustRun(t, "sh", "-c", `mkdir -p /run/zipline/999999999 /sys/fs/bpf/zipline/999999999/v2 /var/lib/cni/networks/others
		printf 'other\r\neth0' >/var/lib/cni/networks/others/10.99.0.2`)

	before := w.Node.Snapshot(t)
	would := w.leftovers("--dry-run")
	if diff := before.Diff(w.Node.Snapshot(t)); len(diff) != 0 {
		t.Errorf("gc --dry-run changed the node:\n%s", strings.Join(diff, "\n"))
	}
	// Where not all namespaces can be seen, all the rest is found.
	if out := w.Node.MustRun(t, "unshare", "--pid", "--fork", w.path, "gc", "--dry-run", "-o", "json"); !strings.Contains(out, "/sys/fs/bpf/dies") || strings.Contains(out, "999999999") {
		t.Errorf("in a PID namespace of its own gc would remove %s", out)
	}
	removed := w.leftovers()
	for kind, want := range map[string][]string{
		"lease":   {"net " + b.v4.String(), "net " + b.v6.String()},
		"element": {"source4 " + b.v4.String(), "source6 " + b.v6.String()},
		"entry":   {"endpoints " + b.v4.String(), "endpoints " + b.v6.String()},
		"node":    {"/run/zipline/999999999", "/sys/fs/bpf/zipline/999999999"},
		"pin":     {"/sys/fs/bpf/dies"},
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
	for _, addr := range theirs {
		if slices.Contains(removed["lease"], "net "+addr) {
			t.Errorf("gc took the lease that host-local made of %s", addr)
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

// TestGCDuringAddsTakesNothingOfTheirs has elements of dead containers to remove
// all the time, while others of the same network come.
func TestGCDuringAddsTakesNothingOfTheirs(t *testing.T) {
	w := newSteerWorld(t)
	config := steerConfig(map[string]any{"macspoofchk": true})
	w.attach(config, false).Kill(t)
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if out, err := w.ctl("gc"); err != nil {
				ended <- fmt.Errorf("gc: %w: %s", err, out)
				return
			}
		}
	}()
	var pods []*steerPod
	for range 30 {
		pods = append(pods, w.attach(config, false))
		w.attach(config, false).Kill(t)
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	table := w.Node.MustRun(t, "nft", "list", "table", "inet", "zipline")
	leases := strings.Fields(w.Node.MustRun(t, "ls", "/var/lib/cni/networks/net"))
	for _, p := range pods {
		for _, addr := range []netip.Addr{p.v4, p.v6} {
			if !strings.Contains(table, addr.String()+" comment") {
				t.Errorf("the ruleset has lost %s of %s", addr, p.device)
			}
			if !slices.Contains(leases, addr.String()) {
				t.Errorf("the lease of %s of %s is gone", addr, p.device)
			}
		}
	}
}
