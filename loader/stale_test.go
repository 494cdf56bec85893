// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
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
