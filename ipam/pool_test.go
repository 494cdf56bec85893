// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReleaseEndsEveryLeaseOfTheOwnerAndNoOther(t *testing.T) {
	p := newPool(t, t.TempDir(), dual)
	mustAllocate(t, p, owner(1))
	mustAllocate(t, p, owner(2))
	mustAllocate(t, p, Owner{"container-1", "eth1"})
	if got := mustRelease(t, p, owner(1)); got != "10.0.0.2 2001:db8::2" {
		t.Errorf("released %q", got)
	}
	if got := mustRelease(t, p, owner(1)); got != "" {
		t.Errorf("released %q again", got)
	}
	for o, want := range map[Owner]string{owner(2): "10.0.0.3 2001:db8::3", {"container-1", "eth1"}: "10.0.0.4 2001:db8::4"} {
		if got := mustLeases(t, p, o); got != want {
			t.Errorf("%s holds %q, want %q", o, got, want)
		}
	}
	checkSound(t, p)
}

func TestReleaseUnderstandsEveryFormOfALease(t *testing.T) {
	for name, content := range map[string]string{
		"as host-local writes it":                 "container-1\r\neth0",
		"with a line break at the end":            "container-1\r\neth0\r\n",
		"with bare line feeds":                    "container-1\neth0\n",
		"in the older format":                     "container-1",
		"in the older format with a line break":   "container-1\n",
		"in the older format with a blank ifname": "container-1\r\n",
	} {
		p := newPool(t, t.TempDir(), small)
		plant(t, p, "10.0.0.4", content, 0)
		plant(t, p, "10.0.0.5", "container-2\r\neth0", 0)
		if got := mustRelease(t, p, owner(1)); got != "10.0.0.4" {
			t.Errorf("%s: released %q, want 10.0.0.4", name, got)
		}
		if !exists(t, p, "10.0.0.5") {
			t.Errorf("%s: another's lease is gone", name)
		}
	}
}

func TestReleasePrefersTheLeaseThatNamesTheInterface(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	plant(t, p, "10.0.0.4", "container-1", 0)
	plant(t, p, "10.0.0.5", "container-1\r\neth0", 0)
	if got := mustRelease(t, p, owner(1)); got != "10.0.0.5" {
		t.Errorf("released %q, want 10.0.0.5 alone, as host-local does", got)
	}
	if got := mustRelease(t, p, owner(1)); got != "10.0.0.4" {
		t.Errorf("released %q, want 10.0.0.4", got)
	}
}

func TestReleaseNeverTrustsTheIndexAlone(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	mustAllocate(t, p, owner(1))
	// The lease changes hands without a change of the directory.
	path := filepath.Join(p.Dir(), "10.0.0.2")
	if err := os.WriteFile(path, []byte("container-2\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mustRelease(t, p, owner(1)); got != "" || !exists(t, p, "10.0.0.2") {
		t.Errorf("released %q", got)
	}
	if got := mustRelease(t, p, owner(2)); got != "10.0.0.2" {
		t.Errorf("the new holder released %q", got)
	}
	checkSound(t, p)
}

func TestReleaseFindsALeaseThatLostItsInterfaceInPlace(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	mustAllocate(t, p, owner(1))
	if err := os.WriteFile(filepath.Join(p.Dir(), "10.0.0.2"), []byte("container-1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mustRelease(t, p, owner(1)); got != "10.0.0.2" {
		t.Errorf("released %q, want 10.0.0.2", got)
	}
}

func TestNothingIsMadeWhereNothingIsLeased(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	released, releaseErr := p.Release(owner(1))
	collected, collectErr := p.Collect(ValidOwners(nil))
	if releaseErr != nil || collectErr != nil || p.Status() != nil || len(released)+len(collected) > 0 {
		t.Errorf("release: %v, %v; collect: %v, %v; status: %v", released, releaseErr, collected, collectErr, p.Status())
	}
	if err := p.Check(owner(1)); !errors.Is(err, ErrNotLeased) {
		t.Errorf("check: %v", err)
	}
	if _, err := os.Stat(p.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestTheIndexMayVanish(t *testing.T) {
	p := newPool(t, t.TempDir(), dual)
	mustAllocate(t, p, owner(1))
	if err := os.RemoveAll(filepath.Join(p.Dir(), ownName)); err != nil {
		t.Fatal(err)
	}
	if got := mustLeases(t, p, owner(1)); got != "10.0.0.2 2001:db8::2" {
		t.Errorf("holds %q", got)
	}
	checkSound(t, p)
	for _, remove := range []string{ownersName, stateName} {
		if err := os.RemoveAll(filepath.Join(p.Dir(), ownName, remove)); err != nil {
			t.Fatal(err)
		}
		if got := mustAllocate(t, p, owner(1)); got != "10.0.0.2 2001:db8::2" {
			t.Errorf("without %s: holds %q", remove, got)
		}
		checkSound(t, p)
	}
	if got := mustRelease(t, p, owner(1)); got != "10.0.0.2 2001:db8::2" {
		t.Errorf("released %q", got)
	}
}

func TestManyLeasesOfOneOwnerKeepTheIndexWithoutGaps(t *testing.T) {
	p := newPool(t, t.TempDir(), `{"ranges":[[{"subnet":"10.0.0.0/24"}]]}`)
	for i := 2; i < 22; i++ {
		plant(t, p, fmt.Sprintf("10.0.0.%d", i), "container-1\r\neth0", 0)
	}
	if got := len(strings.Fields(mustLeases(t, p, owner(1)))); got != 20 {
		t.Errorf("holds %d leases, want 20", got)
	}
	if err := os.Remove(filepath.Join(p.Dir(), "10.0.0.5")); err != nil {
		t.Fatal(err)
	}
	if got := len(strings.Fields(mustLeases(t, p, owner(1)))); got != 19 {
		t.Errorf("holds %d leases, want 19", got)
	}
	checkSound(t, p)
	// One range set: one lease stays, the other 18 are given up.
	if got := mustAllocate(t, p, owner(1)); got != "10.0.0.2" {
		t.Errorf("got %s, want 10.0.0.2", got)
	}
	if got := mustLeases(t, p, owner(1)); got != "10.0.0.2" {
		t.Errorf("holds %s, want 10.0.0.2", got)
	}
	checkSound(t, p)
}

func TestCheckWantsALeaseOfEveryRangeSet(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, dir, dual)
	mustAllocate(t, p, owner(1))
	if err := p.Check(owner(1)); err != nil {
		t.Errorf("check: %v", err)
	}
	if err := os.Remove(filepath.Join(p.Dir(), "2001:db8::2")); err != nil {
		t.Fatal(err)
	}
	err := p.Check(owner(1))
	if !errors.Is(err, ErrNotLeased) || !strings.Contains(err.Error(), "range set 1 (2001:db8::1") {
		t.Errorf("check: %v, want ErrNotLeased for range set 1", err)
	}
	if err := p.Check(owner(2)); !errors.Is(err, ErrNotLeased) {
		t.Errorf("check of a stranger: %v", err)
	}
	old := newPool(t, t.TempDir(), small)
	plant(t, old, "10.0.0.4", "container-1", 0)
	if err := old.Check(owner(1)); err != nil {
		t.Errorf("check of a lease in the older format: %v", err)
	}
}

func TestCollectEndsTheLeasesThatAreNotValid(t *testing.T) {
	setup := func() *Pool {
		p := newPool(t, t.TempDir(), dual)
		mustAllocate(t, p, owner(1))
		mustAllocate(t, p, owner(2))
		plant(t, p, "10.0.0.50", "container-1", 0)
		plant(t, p, "10.0.0.51", "container-9\n", 0)
		plant(t, p, "192.0.2.1", "container-9\r\neth0", 0)
		plant(t, p, "10.0.0.52", "", 0)
		plant(t, p, "notes.txt", "container-9\r\neth0", 0)
		return p
	}
	for _, tt := range []struct {
		name  string
		valid []Owner
		want  string
	}{
		{"some are valid", []Owner{owner(1), owner(7)}, "10.0.0.3 10.0.0.51 192.0.2.1 2001:db8::3"},
		{"another interface is valid", []Owner{{"container-2", "eth9"}, {"container-9", "eth9"}}, "10.0.0.2 10.0.0.3 10.0.0.50 192.0.2.1 2001:db8::2 2001:db8::3"},
		{"none is valid", nil, "10.0.0.2 10.0.0.3 10.0.0.50 10.0.0.51 192.0.2.1 2001:db8::2 2001:db8::3"},
	} {
		p := setup()
		collected, err := p.Collect(ValidOwners(tt.valid))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var got []string
		for _, lease := range collected {
			got = append(got, lease.Address.String())
		}
		slices.Sort(got)
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: collected %s, want %s", tt.name, strings.Join(got, " "), tt.want)
		}
		for _, name := range []string{lockName, lastPrefix + "0", "notes.txt"} {
			if !exists(t, p, name) {
				t.Errorf("%s: %s is gone", tt.name, name)
			}
		}
		if exists(t, p, "10.0.0.52") {
			t.Errorf("%s: an empty file is left", tt.name)
		}
		checkSound(t, p)
	}
}

func TestStatusCountsOnlyWhatCouldBeLeased(t *testing.T) {
	p := newPool(t, t.TempDir(), `{"ranges":[[{"subnet":"10.0.0.0/30"},{"subnet":"10.0.1.0/30"}],[{"subnet":"2001:db8::/64"}]]}`)
	for _, addr := range []string{"10.0.0.0", "10.0.0.1", "10.0.0.3", "10.0.1.1", "192.0.2.1", "10.0.0.2"} {
		plant(t, p, addr, "x\r\neth0", 0)
		if err := p.Status(); err != nil {
			t.Errorf("with %s taken: %v", addr, err)
		}
	}
	plant(t, p, "10.0.1.2", "x\r\neth0", 0)
	err := p.Status()
	if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "range 0") {
		t.Errorf("got %v, want ErrExhausted for range 0", err)
	}
}

func TestSubnetsAndDirectoryAreThoseOfTheConfiguration(t *testing.T) {
	p := newPool(t, "/some/where", `{"ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.9"},{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.20"}],[{"subnet":"fd00::/64"}]]}`)
	if got := fmt.Sprint(p.Dir(), p.Subnets()); got != "/some/where/net[10.0.0.0/24 fd00::/64]" {
		t.Errorf("got %s", got)
	}
	if got := newPoolWith(t, ipamConfig(`{"subnet":"10.0.0.0/24"}`), "").Dir(); got != "/var/lib/cni/networks/net" {
		t.Errorf("the default directory is %s", got)
	}
}

func TestADirectoryThatIsEmptiedWhileWeWaitIsMadeAnew(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	mustAllocate(t, p, owner(1))
	held, err := lockDirectory(p.Dir(), false)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := p.Allocate(owner(2))
		done <- err
	}()
	waitForLock(t, p)
	if err := os.RemoveAll(p.Dir()); err != nil {
		t.Fatal(err)
	}
	held.release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := mustLeases(t, p, owner(2)); got != "10.0.0.2" {
		t.Errorf("holds %q, want 10.0.0.2", got)
	}
	if !exists(t, p, lockName) {
		t.Error("the lock that was waited for is not in the directory")
	}
}

// waitForLock waits until somebody waits for the pool's lock.
func waitForLock(tb testing.TB, p *Pool) {
	tb.Helper()
	info, err := os.Stat(filepath.Join(p.Dir(), lockName))
	if err != nil {
		tb.Fatal(err)
	}
	inode := fmt.Sprintf(":%d ", inodeOf(info))
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			tb.Fatal(err)
		}
		for line := range strings.Lines(string(locks)) {
			if strings.Contains(line, "-> FLOCK") && strings.Contains(line, inode) {
				return
			}
		}
	}
	tb.Fatal("nobody waits for the lock")
}
