// SPDX-License-Identifier: Apache-2.0

package testutil_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// recorder is a testing.TB that notes how a requirement ended the test.
type recorder struct {
	testing.TB
	skipped, failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Skipf(string, ...any)  { r.skipped = true; runtime.Goexit() }
func (r *recorder) Fatalf(string, ...any) { r.failed = true; runtime.Goexit() }

func run(tb testing.TB, f func(testing.TB)) *recorder {
	r := &recorder{TB: tb}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	return r
}

func TestMissingProgramSkipsOnALaptopAndFailsInCI(t *testing.T) {
	missing := func(tb testing.TB) { testutil.RequireProgram(tb, "no-such-program-anywhere") }
	t.Setenv("CI", "")
	if r := run(t, missing); !r.skipped || r.failed {
		t.Errorf("without CI: skipped %v, failed %v; want skipped", r.skipped, r.failed)
	}
	t.Setenv("CI", "true")
	if r := run(t, missing); r.skipped || !r.failed {
		t.Errorf("with CI: skipped %v, failed %v; want failed", r.skipped, r.failed)
	}
}

func TestALackOfTheKernelFailsInCIWhereItIsNotExpected(t *testing.T) {
	lack := func(tb testing.TB) { testutil.RequireKernel(tb, "tcx", errors.New("not there")) }
	t.Setenv("CI", "true")
	t.Setenv("ZIPLINE_TEST_KERNEL", "")
	if r := run(t, lack); r.skipped || !r.failed {
		t.Errorf("on this machine: skipped %v, failed %v; want failed", r.skipped, r.failed)
	}
	t.Setenv("ZIPLINE_TEST_KERNEL", "other")
	if r := run(t, lack); !r.skipped || r.failed {
		t.Errorf("on another kernel: skipped %v, failed %v; want skipped", r.skipped, r.failed)
	}
	if r := run(t, func(tb testing.TB) { testutil.RequireKernel(tb, "tcx", nil) }); r.skipped || r.failed {
		t.Errorf("with the feature: skipped %v, failed %v; want neither", r.skipped, r.failed)
	}
}

func TestPresentProgramPasses(t *testing.T) {
	t.Setenv("CI", "true")
	if r := run(t, func(tb testing.TB) { testutil.RequireProgram(tb, "sh") }); r.skipped || r.failed {
		t.Errorf("sh: skipped %v, failed %v; want neither", r.skipped, r.failed)
	}
}

func TestRootPassesOrSkipsByUser(t *testing.T) {
	t.Setenv("CI", "")
	r := run(t, testutil.RequireRoot)
	if r.failed {
		t.Error("RequireRoot failed the test without CI")
	}
	if os.Geteuid() != 0 && !r.skipped {
		t.Error("RequireRoot let a plain user pass")
	}
}

func TestRepoRootHasTheModule(t *testing.T) {
	if _, err := os.Stat(filepath.Join(testutil.RepoRoot(t), "go.mod")); err != nil {
		t.Error(err)
	}
}
