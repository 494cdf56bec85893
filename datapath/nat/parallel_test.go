// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Nobody but Install has a lock, in real life too.
func TestEverythingAtOnce(t *testing.T) {
	r := newRuleset(t)
	const workers, rounds, networks = 16, 20, 5
	var group sync.WaitGroup
	for i := range workers {
		mine := mustOpen(t) // here: a socket stays in the namespace it was opened in
		group.Go(func() {
			for round := range rounds {
				o, sources, opts := endpoint(i*rounds+round, networks)
				if err := addOrInstall(mine, o, sources, opts); err != nil {
					t.Errorf("worker %d: %v", i, err)
					return
				}
				if round%2 == 0 {
					continue // stays
				}
				if err := mine.Remove(o, []netip.Addr{sources[0].Address, sources[1].Address}); err != nil {
					t.Errorf("worker %d: %v", i, err)
				}
				// The last of a subnet believes so; others may just begin.
				if err := mine.RemoveNetwork([]netip.Prefix{sources[0].Subnet, sources[1].Subnet}); err != nil {
					t.Errorf("worker %d: %v", i, err)
				}
			}
		})
	}
	installer, collector := mustOpen(t), mustOpen(t)
	group.Go(func() {
		for range rounds {
			installing.Lock()
			err := installer.Install()
			installing.Unlock()
			if err != nil {
				t.Error(err)
			}
		}
	})
	group.Go(func() {
		for range rounds {
			n, err := collector.Collect("network-00", func(string) bool { return true })
			if n != 0 || err != nil {
				t.Errorf("collected %d, %v", n, err)
			}
		}
	})
	group.Wait()
	kept := 0
	for i := range workers * rounds {
		if i%rounds%2 != 0 {
			continue
		}
		o, sources, opts := endpoint(i, networks)
		if err := r.Check(o, sources, opts); err != nil {
			t.Error(err)
		}
		kept++
	}
	for _, s := range []*setSpec{ipv4.source, ipv6.source, ipv4.isolated, ipv6.isolated, checkedDevices, allowedMACs} {
		if elements, err := r.elements(s); len(elements) != kept || err != nil {
			t.Errorf("%d elements in %s, %v, want %d", len(elements), s.name, err, kept)
		}
	}
}

// installing stands for the node's lock.
var installing sync.Mutex

// addOrInstall does what a caller does.
func addOrInstall(r *Ruleset, o Owner, sources []Source, opts Options) error {
	if err := r.Add(o, sources, opts); !errors.Is(err, ErrNoTable) {
		return err
	}
	installing.Lock()
	defer installing.Unlock()
	if err := r.Add(o, sources, opts); !errors.Is(err, ErrNoTable) {
		return err
	}
	if err := r.Install(); err != nil {
		return err
	}
	return r.Add(o, sources, opts)
}

// Of many that want one address at once, one gets it.
func TestOneAddressHasOneOwner(t *testing.T) {
	r := newRuleset(t)
	const workers = 12
	var group sync.WaitGroup
	won := make(chan string, workers)
	for i := range workers {
		mine := mustOpen(t)
		group.Go(func() {
			o := owner("zl"+string(rune('a'+i)), "net")
			err := mine.Add(o, []Source{source("10.1.0.2/16")}, Options{})
			if err == nil {
				won <- o.Device
			} else if !errors.Is(err, ErrOwned) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	close(won)
	var winners []string
	for device := range won {
		winners = append(winners, device)
	}
	if len(winners) != 1 {
		t.Fatalf("winners are %v", winners)
	}
	if err := r.Check(owner(winners[0], "net"), []Source{source("10.1.0.2/16")}, Options{}); err != nil {
		t.Error(err)
	}
}

// A batch that relies on an older look must be refused whole.
func TestBatchOfAnOlderGenerationIsRefused(t *testing.T) {
	r, other := newRuleset(t), mustOpen(t)
	old, err := r.look()
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, other, owner("zla", "net"), Options{}, source("10.1.0.2/16"))
	before := listing(t)
	batch := addElements(ipv4.source, addressElement(addr("10.1.0.3")))
	err = r.commit(old.generation, batch)
	var lost *conflict
	if !errors.As(err, &lost) || !errors.Is(err, unix.ERESTART) {
		t.Errorf("commit: %v, want a conflict", err)
	}
	if after := listing(t); after != before {
		t.Errorf("table changed:\n%s", after)
	}
	// The connection must have read all answers: the next batch works.
	mustAdd(t, r, owner("zlb", "net"), Options{}, source("10.1.0.3/16"))
}

func TestFailingBatchNamesTheMessageAndChangesNothing(t *testing.T) {
	r := newRuleset(t)
	now, err := r.look()
	if err != nil {
		t.Fatal(err)
	}
	before := listing(t)
	batch := addElements(ipv4.source, addressElement(addr("10.1.0.3")))
	batch = append(batch, deleteElements(ipv4.source, addressElement(addr("10.1.0.9")))...)
	batch = append(batch, addElements(ipv4.random, addressElement(addr("10.1.0.4")))...)
	err = r.commit(now.generation, batch)
	if want := "ruleset keeps changing: delete element 10.1.0.9 of source4: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("commit: %v, want %s", err, want)
	}
	if after := listing(t); after != before {
		t.Errorf("table changed:\n%s", after)
	}
	mustAdd(t, r, owner("zlb", "net"), Options{}, source("10.1.0.3/16"))
}

// The kernel counts a rule's use of its chain before the transaction commits: who
// prepares to replace the rules must not make them look incomplete to others.
func TestTransactionThatDoesNotCommitMisleadsNobody(t *testing.T) {
	r, other := newRuleset(t), mustOpen(t)
	batch := append([]message{deleteRules()}, allRules()...)
	batch = append(batch, deleteChain("missing"))
	var group sync.WaitGroup
	stop := make(chan struct{})
	t.Cleanup(group.Wait)
	t.Cleanup(func() { close(stop) })
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			const anyGeneration = 0
			if err := other.commit(anyGeneration, batch); !errors.Is(err, unix.ENOENT) {
				t.Errorf("commit: %v, want ENOENT", err)
				return
			}
		}
	})
	o, sources := owner("zla", "net"), []Source{source("10.1.0.2/16")}
	short := 0
	for deadline := time.Now().Add(2 * time.Second); short < 10 && time.Now().Before(deadline); {
		if _, err := r.lookEndpoint(o, sources, Options{}); errors.Is(err, ErrNoTable) {
			short++
		} else if err != nil {
			t.Fatal(err)
		}
		mustAdd(t, r, o, Options{}, sources...)
		if err := r.Check(o, sources, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the counts were short %d times", short)
}
