// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// died is what a process that is stopped in the middle panics with.
type died struct{ n int }

// dieAt runs f and stops it before its n-th change on disk, with everything
// left as it is but the lock, which the kernel drops. It returns false if f had
// less changes to make.
func dieAt(p *Pool, n int, f func()) (dead bool) {
	count := 0
	p.store.step = func(string) {
		if count++; count >= n {
			panic(died{n}) // again for a deferred function: a dead process has none
		}
	}
	defer func() {
		p.store.step = nil
		if r := recover(); r != nil {
			if _, ok := r.(died); !ok {
				panic(r)
			}
			dead = true
		}
	}()
	f()
	return false
}

// TestAnAddThatDiesAnywhereCanBeRepeated stops an ADD before each of its
// changes, and then does what a runtime does: ADD again, or DEL.
func TestAnAddThatDiesAnywhereCanBeRepeated(t *testing.T) {
	for n := 1; ; n++ {
		died := false
		for _, repeat := range []bool{true, false} {
			p := newPool(t, t.TempDir(), dual)
			mustAllocate(t, p, owner(0))
			died = dieAt(p, n, func() { _, _ = p.Allocate(owner(1)) })
			if repeat {
				got := mustAllocate(t, p, owner(1))
				if held := mustLeases(t, p, owner(1)); held != got || len(strings.Fields(held)) != 2 {
					t.Errorf("died before change %d: got %s, holds %s", n, got, held)
				}
				checkSound(t, p)
			}
			mustRelease(t, p, owner(1))
			if files := leaseFiles(t, p.Dir()); len(files) != 4 { // two leases, two last addresses
				t.Errorf("died before change %d, then released: left %q", n, files)
			}
			if got := links(t, p); got != 2 {
				t.Errorf("died before change %d, then released: index has %d entries, want 2", n, got)
			}
			checkSound(t, p)
		}
		if !died {
			if n < 10 {
				t.Fatalf("an ADD made only %d changes", n)
			}
			return
		}
	}
}

func TestADelThatDiesAnywhereCanBeRepeated(t *testing.T) {
	for n := 1; ; n++ {
		p := newPool(t, t.TempDir(), dual)
		mustAllocate(t, p, owner(0))
		mustAllocate(t, p, owner(1))
		died := dieAt(p, n, func() { _, _ = p.Release(owner(1)) })
		mustRelease(t, p, owner(1))
		if files := leaseFiles(t, p.Dir()); len(files) != 4 {
			t.Errorf("died before change %d, then released: left %q", n, files)
		}
		checkSound(t, p)
		if !died {
			if n < 5 {
				t.Fatalf("a DEL made only %d changes", n)
			}
			return
		}
	}
}

// crashEnv tells the test binary to be a worker: "<dataDir> <seed> <owners>".
const crashEnv = "ZIPLINE_IPAM_TEST_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(claimEnv) != "" {
		if err := claimer(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if job := os.Getenv(crashEnv); job != "" {
		if err := work(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// work allocates and releases at random for ever.
func work(job string) error {
	var dataDir string
	var seed uint64
	var owners int
	if _, err := fmt.Sscan(job, &dataDir, &seed, &owners); err != nil {
		return err
	}
	p, err := NewPool([]byte(poolConfig(dataDir, dual)), "")
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	fmt.Println("working")
	for {
		o := owner(rng.IntN(owners))
		if rng.IntN(2) == 0 {
			_, err = p.Allocate(o)
		} else {
			_, err = p.Release(o)
		}
		if err != nil {
			return err
		}
	}
}

// startWorker returns a running worker, which the caller must kill.
func startWorker(tb testing.TB, dataDir string, seed, owners int) *exec.Cmd {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), crashEnv+"="+strings.Join([]string{dataDir, strconv.Itoa(seed), strconv.Itoa(owners)}, " "))
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 16)); err != nil {
		_ = cmd.Process.Kill()
		tb.Fatalf("start worker: %v", err)
	}
	return cmd
}

// kill kills the worker, which must still have been at work.
func kill(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	if err := cmd.Process.Kill(); err != nil {
		tb.Error(err)
	}
	if _ = cmd.Wait(); cmd.ProcessState.Exited() {
		tb.Errorf("worker ended by itself: %v", cmd.ProcessState)
	}
}

// TestKilledProcessesLeaveADirectoryInOrder kills processes at arbitrary moments.
func TestKilledProcessesLeaveADirectoryInOrder(t *testing.T) {
	const owners = 12
	dataDir := t.TempDir()
	p := newPool(t, dataDir, dual)
	for round := range 60 {
		worker := startWorker(t, dataDir, round, owners)
		time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond)
		kill(t, worker)
		for name, content := range leaseFiles(t, p.Dir()) {
			if _, ok := leaseName(name); !ok {
				continue
			}
			if o, ok := parseLease([]byte(content)); !ok || o.IfName != "eth0" {
				t.Fatalf("round %d: lease file %s has content %q", round, name, content)
			}
		}
		o := owner(round % owners)
		got := mustAllocate(t, p, o)
		if held := mustLeases(t, p, o); held != got || len(strings.Fields(held)) != 2 {
			t.Fatalf("round %d: got %s, holds %s", round, got, held)
		}
		checkSound(t, p)
	}
	for i := range owners {
		mustRelease(t, p, owner(i))
	}
	for name := range leaseFiles(t, p.Dir()) {
		if _, ok := leaseName(name); ok {
			t.Errorf("lease %s is left after its owner's release", name)
		}
	}
	if got := links(t, p); got != 0 {
		t.Errorf("%d index entries are left", got)
	}
}
