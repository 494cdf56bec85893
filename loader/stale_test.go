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
	living := openElsewhere(t, newContainer(t, 1).netns)
	gone := filepath.Join("/run/zipline", "4294967295000")
	must(t, os.MkdirAll(gone, 0o700))
	must(t, os.MkdirAll("/run/zipline/somebody-elses", 0o700))
	stale, err := Site{}.StalePaths()
	if errors.Is(err, ErrNotAllSeen) {
		t.Skip("not in the first PID namespace")
	}
	must(t, err)
	if _, err := os.Stat(living); err != nil {
		t.Errorf("the state of the living namespace: %v", err)
	}
	if !slices.Equal(stale, []string{gone}) {
		t.Errorf("stale are %v, want %s; %s is alive", stale, gone, living)
	}
	must(t, Site{}.RemoveStale(gone))
	if stale, err := (Site{}).StalePaths(); err != nil || len(stale) != 0 {
		t.Errorf("stale are %v (%v), want none", stale, err)
	}
}

// openElsewhere loads the programs in another namespace, and returns where its state
// is. The thread goes there itself: any other one has the machine's mounts.
func openElsewhere(t *testing.T, netns *os.File) (dir string) {
	t.Helper()
	here, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	defer func() { _ = here.Close() }() // only read from
	must(t, unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET))
	defer func() { must(t, unix.Setns(int(here.Fd()), unix.CLONE_NEWNET)) }()
	return mustOpen(t, Site{}, 0).dir
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
