// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

const dataDir = "/var/lib/cni/networks"

// lease finds a lease by its address.
func (s *stage) lease(address string, args ...string) *leaseJSON {
	s.tb.Helper()
	var leases []leaseJSON
	s.ask(&leases, append([]string{"leases"}, args...)...)
	for i := range leases {
		if leases[i].Address == address {
			return &leases[i]
		}
	}
	s.tb.Fatalf("no lease of %s among %+v", address, leases)
	return nil
}

func TestLeasesAndWhoHoldsThem(t *testing.T) {
	s := newStage(t, testrig.Options{})
	a := s.attach(config("net", "kernel", 62))
	gone := s.attach(config("net", "kernel", 62))
	for _, address := range []string{a.v4.String(), a.v6.String()} {
		l := s.lease(address)
		if l.State != leaseHeld || l.Device != a.device || l.ContainerID != a.ID || l.IfName != "eth0" || l.Network != "net" ||
			l.File != filepath.Join(dataDir, "net", address) || l.Why != "" {
			t.Errorf("%+v", l)
		}
		made, err := time.Parse(time.RFC3339, l.Made)
		if age := time.Since(made); err != nil || age < 0 || age > time.Minute {
			t.Errorf("made %s, %v", l.Made, err)
		}
	}
	// Its device goes, and no DEL comes.
	s.Node.MustRun(t, "ip", "link", "del", gone.device)
	file := filepath.Join(dataDir, "net", gone.v4.String())
	if l := s.lease(gone.v4.String()); l.State != leasePending || l.Device != "" {
		t.Errorf("a young lease that nobody has: %+v", l)
	}
	err := s.Node.Do(func() error { return os.Chtimes(file, time.Time{}, time.Now().Add(-time.Minute)) })
	if err != nil {
		t.Fatal(err)
	}
	if l := s.lease(gone.v4.String(), "--stale", "--network", "net"); l.State != leaseStale || l.Why == "" || l.ContainerID != gone.ID {
		t.Errorf("an old lease that nobody has: %+v", l)
	}
	var leases []leaseJSON
	s.ask(&leases, "leases", "--stale")
	if len(leases) != 1 {
		t.Errorf("stale: %+v", leases)
	}
	s.ask(&leases, "leases", "--network", "nope")
	if len(leases) != 0 {
		t.Errorf("leases of a network that is not there: %+v", leases)
	}
}

func TestLeasesOfOthersAreNotCalledStale(t *testing.T) {
	s := newStage(t, testrig.Options{})
	err := s.Node.Do(func() error {
		dir := "/run/elsewhere/theirs"
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		file := filepath.Join(dir, "10.9.0.2")
		if err := os.WriteFile(file, []byte("somebody\r\neth0"), 0o600); err != nil {
			return err
		}
		return os.Chtimes(file, time.Time{}, time.Now().Add(-time.Second))
	})
	if err != nil {
		t.Fatal(err)
	}
	l := s.lease("10.9.0.2", "--data-dir", dataDir, "--data-dir", "/run/elsewhere")
	if l.State != leaseUnknown || l.Network != "theirs" || l.ContainerID != "somebody" {
		t.Errorf("%+v", l)
	}
}

func TestLeasesWithNamesTooLongForADevice(t *testing.T) {
	s := newStage(t, testrig.Options{})
	long := strings.Repeat("network-", 30) // a file's name may be that long, an alias has no room for it
	a := s.attach(config(long, "kernel", 62))
	if l := s.lease(a.v4.String()); l.State != leaseHeld || l.Network != long || l.Device != a.device {
		t.Errorf("%+v", l)
	}
}
