// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"fmt"
	"strings"
	"testing"
)

func TestHostLocalWorksWithOurLeases(t *testing.T) {
	h := newHostLocal(t)
	stdin := poolConfig(t.TempDir(), dual)
	p := newPoolWith(t, stdin, "")
	mustAllocate(t, p, owner(1))
	mustAllocate(t, p, owner(2))
	h.mustRun(t, "CHECK", stdin, owner(1))
	if _, err := h.run("ADD", stdin, "", owner(1)); err == nil || !strings.Contains(err.Error(), "duplicate allocation") {
		t.Errorf("ADD of our owner: %v, want a refusal", err)
	}
	h.mustRun(t, "DEL", stdin, owner(1))
	if got := len(leaseFiles(t, p.Dir())); got != 4 { // two leases and two last addresses
		t.Errorf("%d files are left, want 4", got)
	}
	// It has removed the index entries along with the leases.
	checkSound(t, p)
	if _, err := h.run("CHECK", stdin, "", owner(1)); err == nil {
		t.Error("CHECK of a released owner succeeds")
	}
	if got, err := h.add(stdin, "", owner(1)); err != nil || got.String() != "10.0.0.4/24 10.0.0.1, 2001:db8::4/64 2001:db8::1" {
		t.Errorf("ADD: %s, %v", got, err)
	}
	h.mustRun(t, "DEL", stdin, owner(2))
	if got := links(t, p); got != 0 {
		t.Errorf("%d index entries are left", got)
	}
}

func TestWeWorkWithHostLocalsLeases(t *testing.T) {
	h := newHostLocal(t)
	stdin := poolConfig(t.TempDir(), dual)
	p := newPoolWith(t, stdin, "")
	for i := range 3 {
		h.mustRun(t, "ADD", stdin, owner(i))
	}
	if err := p.Check(owner(1)); err != nil {
		t.Errorf("check: %v", err)
	}
	result, err := p.Allocate(owner(1))
	if err != nil || !result.Reused || addresses(result) != "10.0.0.3 2001:db8::3" {
		t.Errorf("got %+v, %v; want what host-local leased", result, err)
	}
	if got := mustRelease(t, p, owner(1)); got != "10.0.0.3 2001:db8::3" {
		t.Errorf("released %q", got)
	}
	if _, err := h.run("CHECK", stdin, "", owner(1)); err == nil {
		t.Error("host-local finds a lease that was released")
	}
	h.mustRun(t, "ADD", stdin, owner(1))
	collected, err := p.Collect(ValidOwners([]Owner{owner(1)}))
	if err != nil || len(collected) != 4 {
		t.Errorf("collected %v, %v; want 4 leases", collected, err)
	}
	h.mustRun(t, "CHECK", stdin, owner(1))
	checkSound(t, p)
}

// TestNoAddressIsLeasedTwice runs several processes of ours and of host-local in
// one small pool. Each marks the addresses that it was given; a mark that is
// there already is an address that was given to two.
func TestNoAddressIsLeasedTwice(t *testing.T) {
	h := newHostLocal(t)
	stdin, claims := poolConfig(t.TempDir(), `{"ranges":[[{"subnet":"10.0.0.0/28"}],[{"subnet":"2001:db8::/123"}]]}`), t.TempDir()
	const workers, rounds = 3, 120
	var group errgroup
	for i := range workers {
		group.run(func() error {
			out, err := runClaimer(stdin, claims, i, rounds)
			if err != nil {
				return fmt.Errorf("process %d: %w: %s", i, err, out)
			}
			return nil
		})
		group.run(func() error {
			return claimLoop(claims, workers+i, rounds/4, func(o Owner) ([]string, error) {
				result, err := h.add(stdin, "", o)
				if err != nil && strings.Contains(err.Error(), "no IP addresses available") {
					return nil, nil
				}
				var addrs []string
				for _, ip := range result.IPs {
					addr, _, _ := strings.Cut(ip.Address, "/")
					addrs = append(addrs, addr)
				}
				return addrs, err
			}, func(o Owner) error {
				_, err := h.run("DEL", stdin, "", o)
				return err
			})
		})
	}
	for _, err := range group.wait() {
		t.Error(err)
	}
	p := newPoolWith(t, stdin, "")
	mustLeases(t, p, owner(0))
	checkSound(t, p)
	for name := range leaseFiles(t, p.Dir()) {
		if _, ok := leaseName(name); ok {
			t.Errorf("lease %s is left", name)
		}
	}
}
