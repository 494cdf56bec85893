// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Children returns the children of this process that are in one of the states (the
// letters of proc_pid_stat(5)), or without any all of them, zombies too.
func Children(tb testing.TB, states ...string) (pids []int) {
	tb.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent …, where the name may hold anything (proc_pid_stat(5)).
		end := strings.LastIndexByte(string(text), ')')
		var pid, parent int
		var state string
		if _, err := fmt.Sscan(string(text[end+1:]), &state, &parent); err != nil || parent != os.Getpid() {
			continue
		}
		if len(states) > 0 && !slices.Contains(states, state) {
			continue
		}
		if pid, err = strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// eventually is how long [Eventually] tries.
const eventually = 10 * time.Second

// Eventually waits until ok, and fails the test if that does not come.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(eventually); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not so after %v: %s", eventually, what)
		}
	}
}
