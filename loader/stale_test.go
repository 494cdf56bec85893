// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A namespace that only a descriptor holds is alive, and its state stays.
func TestOnlyTheStateOfDeadNamespacesIsStale(t *testing.T) {
	enterNode(t)
	mustOpen(t, Site{}, 0)
	c := newContainer(t, 1)
	var living string
	must(t, c.do(func() error {
		n, err := Open(0)
		if err != nil {
			return err
		}
		living = n.dir
		return n.Close()
	}))
	gone := filepath.Join("/run/zipline", "4294967295000")
	must(t, os.MkdirAll(gone, 0o700))
	must(t, os.MkdirAll("/run/zipline/somebody-elses", 0o700))
	stale, err := Site{}.StalePaths()
	if errors.Is(err, ErrNotAllSeen) {
		t.Skip("not in the first PID namespace")
	}
	must(t, err)
	if !slices.Equal(stale, []string{gone}) {
		t.Errorf("stale are %v, want %s; %s is alive", stale, gone, living)
	}
	must(t, Site{}.RemoveStale(gone))
	if stale, err := (Site{}).StalePaths(); err != nil || len(stale) != 0 {
		t.Errorf("stale are %v (%v), want none", stale, err)
	}
}

// Without CAP_SYS_PTRACE nobody sees whose namespaces the processes of others are in.
func TestNothingIsStaleWhereNotAllCanBeSeen(t *testing.T) {
	enterNode(t)
	must(t, os.MkdirAll("/run/zipline/4294967295000", 0o700))
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	must(t, unix.Capget(&header, &data[0]))
	data[0].Effective &^= 1 << unix.CAP_SYS_PTRACE
	must(t, unix.Capset(&header, &data[0])) // of this thread, which ends with the test
	if stale, err := (Site{}).StalePaths(); !errors.Is(err, ErrNotAllSeen) {
		t.Errorf("stale are %v (%v)", stale, err)
	}
}
