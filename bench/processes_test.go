// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os/exec"
	"testing"

	"github.com/zipline-cni/zipline/internal/testutil"
)

func TestDescendantsAreCountedAtEveryDepth(t *testing.T) {
	testutil.RequireRoot(t)
	for _, c := range []struct {
		name                string
		args                []string
		processes, programs int
	}{
		{"a program alone", []string{"true"}, 1, 1},
		{"a shell that becomes another program", []string{"sh", "-c", "exec true"}, 1, 2},
		{"a child and a grandchild", []string{"sh", "-c", "sh -c 'cat /dev/null; :'; :"}, 3, 3},
		{"a subshell is a process without a program", []string{"sh", "-c", "(:); :"}, 2, 1},
		{"threads are no processes", []string{"go", "version"}, 1, 1},
	} {
		w, err := watchProcesses()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(c.args[0], c.args[1:]...)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		events, err := w.events()
		w.close()
		if err != nil {
			t.Fatal(err)
		}
		processes, programs := countDescendants(events, cmd.Process.Pid)
		if processes != c.processes || programs != c.programs {
			t.Errorf("%s: %d processes, %d programs; want %d and %d",
				c.name, processes, programs, c.processes, c.programs)
		}
	}
}

func TestShortMessageIsNoEvent(t *testing.T) {
	if _, ok := parseProcessEvent(make([]byte, 51)); ok {
		t.Error("a message shorter than an event was read as one")
	}
}
