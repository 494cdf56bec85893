// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// RequireRoot skips the test unless it runs as root with the right to make
// network and mount namespaces. With CI set in the environment it fails instead.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if err := canUnshare(); err != nil {
		skipOrFail(tb, err)
	}
}

// RequireProgram skips the test unless an executable of this name is in PATH.
// With CI set in the environment it fails instead.
func RequireProgram(tb testing.TB, name string) {
	tb.Helper()
	if _, err := exec.LookPath(name); err != nil {
		skipOrFail(tb, fmt.Errorf("find program %s: %w", name, err))
	}
}

// RepoRoot returns the absolute path of the repository's root: the nearest
// parent of the working directory with a go.mod. It fails the test without one.
func RepoRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatalf("find repository root: %v", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			tb.Fatal("find repository root: no go.mod in any parent directory")
		}
		dir = parent
	}
}

// skipOrFail is the policy of the package: see its comment.
func skipOrFail(tb testing.TB, reason error) {
	tb.Helper()
	if os.Getenv("CI") != "" {
		tb.Fatalf("required in CI: %v", reason)
	}
	tb.Skipf("needs: %v", reason)
}

// canUnshare tries the namespaces for real, once per process: uid 0 in a
// container often lacks CAP_SYS_ADMIN, and CAP_SYS_ADMIN may be seccomp'ed away.
var canUnshare = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("root: effective uid is %d", os.Geteuid())
	}
	result := make(chan error)
	go func() {
		// The thread is never unlocked, so it dies with the goroutine and takes
		// the namespaces along.
		runtime.LockOSThread()
		result <- unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
	}()
	if err := <-result; err != nil {
		return fmt.Errorf("unshare network and mount namespace: %w", err)
	}
	return nil
})
