// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func nobody(Lease) bool { return false }

// mustStale returns the owners of the stale leases, joined by blanks.
func mustStale(tb testing.TB, dataDir, node string, held func(Lease) bool, end bool) string {
	tb.Helper()
	stale, err := Stale(dataDir, "net", node, held, end)
	if err != nil {
		tb.Fatalf("stale leases of %s: %v", node, err)
	}
	var owners []string
	for _, l := range stale {
		owners = append(owners, l.Address.String()+"="+l.Owner.String())
	}
	return strings.Join(owners, " ")
}

func poolOn(tb testing.TB, dataDir, node string) *Pool {
	tb.Helper()
	p := newPool(tb, dataDir, small)
	p.Node = node
	return p
}

func TestStaleLeavesHostLocalsLeasesAlone(t *testing.T) {
	h := newHostLocal(t)
	dir := t.TempDir()
	config := poolConfig(dir, small)
	p := poolOn(t, dir, "7")
	h.mustRun(t, "ADD", config, owner(1))
	ours := mustAllocate(t, p, owner(2))
	h.mustRun(t, "ADD", config, owner(3))
	if got, want := mustStale(t, dir, "7", nobody, false), ours+"=container-2/eth0"; got != want {
		t.Fatalf("stale: %s, want %s", got, want)
	}
	// Their DEL and ADD give the same owner the same address by another file.
	h.mustRun(t, "DEL", config, owner(2))
	if _, err := h.add(config, "IgnoreUnknown=1;IP="+ours, owner(2)); err != nil {
		t.Fatal(err)
	}
	if got := mustLeases(t, p, owner(2)); got != ours {
		t.Fatalf("host-local leased %s, want %s again", got, ours)
	}
	before := leaseFiles(t, p.Dir())
	if got := mustStale(t, dir, "7", nobody, true); got != "" {
		t.Errorf("took host-local's %s", got)
	}
	if after := leaseFiles(t, p.Dir()); len(after) != len(before) {
		t.Errorf("leases were %q, are %q", before, after)
	}
}

func TestStaleEndsOnlyWhatTheNodeMadeAndNobodyHolds(t *testing.T) {
	dir := t.TempDir()
	here, there, unknown := poolOn(t, dir, "7"), poolOn(t, dir, "8"), poolOn(t, dir, "")
	for i, p := range []*Pool{here, here, there, unknown} {
		mustAllocate(t, p, owner(i))
	}
	held := func(l Lease) bool { return l.Owner == owner(0) }
	want := "10.0.0.3=container-1/eth0"
	if got := mustStale(t, dir, "7", held, false); got != want {
		t.Errorf("would end %s, want %s", got, want)
	}
	if got := mustLeases(t, here, owner(1)); got == "" {
		t.Error("a lease ended that was only looked for")
	}
	if got := mustStale(t, dir, "7", held, true); got != want {
		t.Errorf("ended %s, want %s", got, want)
	}
	if got := mustStale(t, dir, "", nobody, true); got != "" {
		t.Errorf("a node without a name ended %s", got)
	}
	for i, p := range []*Pool{here, here, there, unknown} {
		if gone := mustLeases(t, p, owner(i)) == ""; gone != (i == 1) {
			t.Errorf("lease %d is gone: %v", i, gone)
		}
	}
	checkSound(t, here)
}

func TestALeaseGoesOnWithTheNodeThatRepeatsTheAdd(t *testing.T) {
	dir := t.TempDir()
	addr := mustAllocate(t, poolOn(t, dir, "7"), owner(1))
	mustAllocate(t, poolOn(t, dir, "8"), owner(1))
	if got := mustStale(t, dir, "7", nobody, true); got != "" {
		t.Errorf("the first node took %s", got)
	}
	if got := mustStale(t, dir, "8", nobody, true); got != addr+"=container-1/eth0" {
		t.Errorf("the second node found %q", got)
	}
}

func TestStaleTouchesNoDirectoryThatIsNotInUseByUs(t *testing.T) {
	for name, state := range map[string]string{
		"of host-local":      "",
		"of an earlier boot": "zipline-ipam 1\nboot other\nstamp 1\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := poolOn(t, dir, "7")
			plant(t, p, "10.0.0.2", "one\r\neth0", 1000*24*3600e9) // before any boot
			if state != "" {
				if err := os.MkdirAll(p.store.owners(), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p.store.state(), []byte(state), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := mustStale(t, dir, "7", nobody, true); got != "" {
				t.Errorf("took %s", got)
			}
			if exists(t, p, lockName) || !exists(t, p, "10.0.0.2") || exists(t, p, filepath.Join(ownName, stateName)) != (state != "") {
				t.Error("the directory was changed")
			}
		})
	}
}
