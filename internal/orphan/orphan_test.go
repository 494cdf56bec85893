// SPDX-License-Identifier: Apache-2.0

package orphan

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// pipeSize is the least that a pipe can hold.
const pipeSize = 4096

// fullPipe returns a pipe that the next write to waits for a reader of.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w = newPipe(t)
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, pipeSize); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, pipeSize)); err != nil {
		t.Fatal(err)
	}
	return r, w
}

func newPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() }) // closed by the test, some of them
	return r, w
}

// onlyChild waits for the one child, until all it has open is one file.
func onlyChild(t *testing.T) (dir string) {
	t.Helper()
	testutil.Eventually(t, "a child with one file", func() bool {
		children := testutil.Children(t)
		if len(children) != 1 {
			return false
		}
		dir = fmt.Sprintf("/proc/%d", children[0])
		files, err := os.ReadDir(dir + "/fd")
		return err == nil && len(files) == 1
	})
	return dir
}

func field(t *testing.T, name, key string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("%s has no %s", name, key)
	return ""
}

func TestTheChildHasNothingButTheFile(t *testing.T) {
	r, w := fullPipe(t)
	other, otherEnd := newPipe(t)
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	if err := Write(int(w.Fd()), []byte("message"), func() { close(ended) }); err != nil {
		t.Fatal(err)
	}
	dir := onlyChild(t)

	_, _ = otherEnd.Close(), lock.Close() // nothing was written
	if _, err := other.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a pipe that this process has closed: %v", err)
	}
	again, err := os.Open(lock.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }() // nothing was written
	if err := unix.Flock(int(again.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("a lock that this process has given up: %v", err)
	}
	testutil.Eventually(t, "the child's directory is the root", func() bool {
		cwd, err := os.Readlink(dir + "/cwd")
		return err == nil && cwd == "/"
	})
	// All but SIGKILL and SIGSTOP, which cannot be blocked.
	if blocked := field(t, dir+"/status", "SigBlk"); blocked != "fffffffffffbfeff" {
		t.Errorf("blocked signals %s", blocked)
	}
	select {
	case <-ended:
		t.Error("the child has ended with its write")
	default:
	}

	got := make([]byte, pipeSize+len("message"))
	if _, err := io.ReadFull(r, got); err != nil || string(got[pipeSize:]) != "message" {
		t.Errorf("it wrote %q, %v", got[pipeSize:], err)
	}
	<-ended
	if left := testutil.Children(t); len(left) > 0 {
		t.Errorf("not reaped: %v", left)
	}
}

func TestTheEndOfAKilledChildIsTold(t *testing.T) {
	r, w := fullPipe(t)
	ended := make(chan struct{})
	if err := Write(int(w.Fd()), []byte("message"), func() { close(ended) }); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscanf(onlyChild(t), "/proc/%d", &pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
	_ = w.Close() // the message is the child's
	if got, err := io.ReadAll(r); err != nil || len(got) != pipeSize {
		t.Errorf("%d bytes in the pipe, %v", len(got), err)
	}
}

// asPlugin makes the test's program a process that leaves a child behind.
const asPlugin = "ZIPLINE_TEST_ORPHAN"

// TestTheChildOutlivesItsParent is what a runtime sees: the plugin has ended, and
// its output too, while the child goes on. Here the test is the subreaper that
// adopts it, and waits as for any other child.
func TestTheChildOutlivesItsParent(t *testing.T) {
	if os.Getenv(asPlugin) != "" {
		if err := Write(3, []byte("message"), func() {}); err != nil {
			t.Fatal(err)
		}
		// The output of this process is closed in the child before it writes, and a
		// plugin ends when it has an answer to that.
		onlyChild(t)
		os.Exit(0)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	r, w := fullPipe(t)
	plugin := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	plugin.Env = append(os.Environ(), asPlugin+"=1")
	plugin.ExtraFiles = []*os.File{w}
	if out, err := plugin.CombinedOutput(); err != nil { // at the end of the pipe
		t.Fatalf("%v: %s", err, out)
	}
	children := testutil.Children(t)
	if len(children) != 1 {
		t.Fatalf("the children are %v", children)
	}
	if _, err := io.ReadFull(r, make([]byte, pipeSize+len("message"))); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if pid, err := unix.Wait4(children[0], &status, 0, nil); err != nil || pid != children[0] || status != 0 {
		t.Errorf("wait for %d: %d, status %d, %v", children[0], pid, status, err)
	}
}

func TestTheSignalsOfTheCallerStayAsTheyWere(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, w := newPipe(t)
	before := field(t, "/proc/thread-self/status", "SigBlk")
	ended := make(chan struct{})
	if err := Write(int(w.Fd()), []byte("message"), func() { close(ended) }); err != nil {
		t.Fatal(err)
	}
	if after := field(t, "/proc/thread-self/status", "SigBlk"); after != before {
		t.Errorf("blocked signals were %s and are %s", before, after)
	}
	<-ended
}

// TestABusyRuntimeIsNoMatter copies the process while its other threads allocate,
// collect garbage and make goroutines.
func TestABusyRuntimeIsNoMatter(t *testing.T) {
	const children = 200
	r, w := newPipe(t)
	stop := make(chan struct{})
	var busy, writers sync.WaitGroup
	for range 2 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.GC()
					_ = strings.Repeat("x", 1<<16)
				}
			}
		})
	}
	for i := range children {
		writers.Go(func() {
			ended := make(chan struct{})
			if err := Write(int(w.Fd()), fmt.Appendf(nil, "%03d\n", i), func() { close(ended) }); err != nil {
				t.Error(err)
				return
			}
			<-ended
		})
	}
	writers.Wait()
	close(stop)
	busy.Wait()
	_ = w.Close() // the messages are the children's
	var got []string
	for lines := bufio.NewScanner(r); lines.Scan(); {
		got = append(got, lines.Text())
	}
	slices.Sort(got)
	if got = slices.Compact(got); len(got) != children {
		t.Errorf("%d of %d wrote", len(got), children)
	}
}
