// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// at makes the pool believe that it runs in this boot, which began so long ago.
func at(p *Pool, id string, since time.Duration) *Pool {
	p.store.boot = func() boot { return boot{id: id, started: time.Now().Add(-since)} }
	return p
}

func TestCurrentBootIsTheKernels(t *testing.T) {
	first, second := currentBoot(), currentBoot()
	if len(first.id) != 36 || first.id != second.id {
		t.Errorf("boot ids %q and %q", first.id, second.id)
	}
	if drift := second.started.Sub(first.started).Abs(); drift > time.Second || first.started.After(time.Now()) {
		t.Errorf("boot began at %v, then at %v", first.started, second.started)
	}
}

func TestLeasesOfAnEarlierBootAreFree(t *testing.T) {
	dir := t.TempDir()
	before, after := at(newPool(t, dir, small), "one", time.Hour), at(newPool(t, dir, small), "two", 0)
	for i := range 5 {
		mustAllocate(t, before, owner(i))
	}
	plant(t, before, "192.0.2.1", "container-9", time.Minute)
	// Whoever is first in the new boot sees it.
	for name, first := range map[string]func() error{
		"status":  after.Status,
		"release": func() error { _, err := after.Release(owner(1)); return err },
	} {
		if err := first(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 5 {
		if got := mustLeases(t, after, owner(i)); got != "" {
			t.Errorf("%s still holds %s", owner(i), got)
		}
	}
	if exists(t, after, "192.0.2.1") {
		t.Error("a lease outside of the ranges is left")
	}
	// The order goes on where it was.
	if got := mustAllocate(t, after, owner(10)); got != "10.0.0.2" {
		t.Errorf("got %s, want 10.0.0.2", got)
	}
	checkSound(t, after)
}

func TestLeasesOfThisBootStay(t *testing.T) {
	dir := t.TempDir()
	p := at(newPool(t, dir, small), "one", 0)
	mustAllocate(t, p, owner(1))
	// A clock that is stepped forward makes every lease look older than the boot.
	at(p, "one", -time.Hour)
	mustAllocate(t, p, owner(2))
	if got := mustLeases(t, p, owner(1)); got != "10.0.0.2" {
		t.Errorf("holds %q, want 10.0.0.2", got)
	}
}

func TestADirectoryOfHostLocalKeepsThisBootsLeases(t *testing.T) {
	p := at(newPool(t, t.TempDir(), small), "one", time.Hour)
	plant(t, p, "10.0.0.2", "container-1\r\neth0", 2*time.Hour)
	plant(t, p, "10.0.0.3", "container-2\r\neth0", time.Minute)
	plant(t, p, "10.0.0.4", "container-3", 2*time.Hour)
	if got := mustAllocate(t, p, owner(9)); got != "10.0.0.2" {
		t.Errorf("got %s, want the address of the earlier boot", got)
	}
	if got := mustLeases(t, p, owner(2)); got != "10.0.0.3" {
		t.Errorf("this boot's owner holds %q", got)
	}
	if exists(t, p, "10.0.0.4") {
		t.Error("a lease of an earlier boot is left")
	}
}

func TestTheIndexTellsTheBootWhateverTheClockSays(t *testing.T) {
	dir := t.TempDir()
	before := at(newPool(t, dir, small), "one", 0)
	mustAllocate(t, before, owner(1))
	mustAllocate(t, before, owner(2))
	// In the new boot the clock is behind: it began, it seems, before these
	// leases. host-local has already given .3 to somebody else.
	remove(t, before, "10.0.0.3")
	plant(t, before, "10.0.0.3", "container-3\r\neth0", 0)
	plant(t, before, "10.0.0.4", "container-4\r\neth0", 0)
	after := at(newPool(t, dir, small), "two", 24*time.Hour)
	if got := mustLeases(t, after, owner(1)); got != "" {
		t.Errorf("the earlier boot's owner holds %s", got)
	}
	for i, want := range map[int]string{3: "10.0.0.3", 4: "10.0.0.4"} {
		if got := mustLeases(t, after, owner(i)); got != want {
			t.Errorf("%s, of this boot, holds %q, want %s", owner(i), got, want)
		}
	}
	checkSound(t, after)
}

func TestALeaseThatIsYoungerThanItsIndexEntryIsOfThisBoot(t *testing.T) {
	dir := t.TempDir()
	before := at(newPool(t, dir, small), "one", 0)
	mustAllocate(t, before, owner(1))
	// The files were deleted by hand, all but ours, and the container started
	// again with its old name.
	remove(t, before, "10.0.0.2")
	plant(t, before, "10.0.0.2", "container-1\r\neth0", -time.Minute)
	after := at(newPool(t, dir, small), "two", time.Hour)
	if got := mustLeases(t, after, owner(1)); got != "10.0.0.2" {
		t.Errorf("holds %q, want 10.0.0.2", got)
	}
}

func TestASweepThatWasKilledDoesNotEatThisBootsLeases(t *testing.T) {
	dir := t.TempDir()
	before := at(newPool(t, dir, small), "one", 0)
	mustAllocate(t, before, owner(1))
	plant(t, before, "10.0.0.5", "container-5\r\neth0", time.Second) // host-local, in the new boot
	for n := 1; ; n++ {
		after := at(newPool(t, dir, small), "two", time.Minute)
		if !dieAt(after, n, func() { mustLeases(t, after, owner(5)) }) {
			break
		}
		if !exists(t, after, "10.0.0.5") {
			t.Fatalf("killed before change %d, the lease of this boot is gone", n)
		}
	}
	after := at(newPool(t, dir, small), "two", time.Minute)
	if got := mustLeases(t, after, owner(5)); got != "10.0.0.5" || exists(t, after, "10.0.0.2") {
		t.Errorf("holds %q, want 10.0.0.5, and the earlier boot's lease gone", got)
	}
	checkSound(t, after)
}

func TestWithoutABootIDNothingIsSwept(t *testing.T) {
	p := at(newPool(t, t.TempDir(), small), "", 0)
	plant(t, p, "10.0.0.2", "container-1\r\neth0", time.Hour)
	mustAllocate(t, p, owner(2))
	if got := mustLeases(t, p, owner(1)); got != "10.0.0.2" {
		t.Errorf("holds %q, want 10.0.0.2", got)
	}
	if got := mustLeases(t, p, owner(2)); got != "10.0.0.3" {
		t.Errorf("holds %q, want 10.0.0.3", got)
	}
}

func TestTheStateIsNotRewrittenWithoutNeed(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	mustAllocate(t, p, owner(1))
	changes := 0
	p.store.step = func(string) { changes++ }
	mustLeases(t, p, owner(1))
	mustRelease(t, p, owner(2))
	if err := p.Check(owner(1)); err != nil || p.Status() != nil {
		t.Errorf("check: %v, status: %v", err, p.Status())
	}
	if changes > 0 {
		t.Errorf("reading made %d changes on disk", changes)
	}
	mustRelease(t, p, owner(1))
	if changes == 0 {
		t.Error("a release made no change on disk")
	}
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte("zipline-ipam 1\nboot b6a85bc7-dadd-e9f9-a671-48c5816d3156\nstamp 1795236464193913521\n\n"))
	f.Add([]byte("zipline-ipam 1\nboot \nstamp -1"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if found := parseState(data); found != nil && found.boot == "" {
			t.Fatal("a state of no boot")
		}
	})
}

func FuzzLastReserved(f *testing.F) {
	f.Add([]byte("10.0.0.4"))
	f.Add([]byte("10.0.0.4\n"))
	f.Add([]byte("::ffff:10.0.0.4"))
	p := newPool(f, f.TempDir(), small)
	mustAllocate(f, p, owner(0))
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(filepath.Join(p.Dir(), lastPrefix+"0"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		got := mustAllocate(t, p, owner(1))
		addr, ok := parseAddr(got)
		if r := p.config.sets[0].find(addr); !ok || r == nil || addr == r.gateway || got == "10.0.0.2" {
			t.Fatalf("after %q: got %s", content, got)
		}
		mustRelease(t, p, owner(1))
	})
}

func remove(tb testing.TB, p *Pool, name string) {
	tb.Helper()
	if err := os.Remove(filepath.Join(p.Dir(), name)); err != nil {
		tb.Fatal(err)
	}
}
