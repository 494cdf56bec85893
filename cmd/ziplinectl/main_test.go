// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// execute runs a command line and returns its exit code and what it wrote.
func execute(tb testing.TB, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	var out, errs bytes.Buffer
	code = run(args, streams{out: &out, err: &errs})
	return code, out.String(), errs.String()
}

// inNode does it in a node.
func inNode(tb testing.TB, n *testrig.Node, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	err := n.Do(func() error {
		code, stdout, stderr = execute(tb, args...)
		return nil
	})
	if err != nil {
		tb.Fatalf("ziplinectl %s: %v", strings.Join(args, " "), err)
	}
	return code, stdout, stderr
}

// buildCtl builds the program, which most tests run as a function.
func buildCtl(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "ziplinectl")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		tb.Fatalf("build ziplinectl: %v\n%s", err, out)
	}
	return path
}

func TestUsageErrors(t *testing.T) {
	for _, line := range []string{"nope", "networks extra", "networks --nope", "networks -o yaml", "networks -o"} {
		code, out, errs := execute(t, strings.Fields(line)...)
		if code != exitUsage || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", line, code, out, errs)
		}
	}
}

func TestEveryCommandHasAnExampleAndOneLineOfHelp(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		for _, child := range c.Commands() {
			visit(child)
		}
		if !c.Runnable() || !c.HasParent() {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || !strings.Contains(c.Example, "ziplinectl") {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
	}
	visit(newRoot(&app{}))
}

func TestUnknownCommandsAreGuessed(t *testing.T) {
	for line, want := range map[string]string{"endpoint": "do you mean endpoints?", "stats": "do you mean status?", "prog lst": "", "zzz": ""} {
		code, _, errs := execute(t, strings.Fields(line)...)
		if code != exitUsage || strings.Contains(errs, "do you mean") != (want != "") || !strings.Contains(errs, want) {
			t.Errorf("%q: exit code %d, stderr %q", line, code, errs)
		}
	}
}

// TestExamplesAreWellFormed parses each line of each example, up to a pipe.
func TestExamplesAreWellFormed(t *testing.T) {
	for _, c := range documented(newRoot(&app{})) {
		for line := range strings.Lines(c.Example) {
			words, _, _ := strings.Cut(line, "|")
			found, rest, err := newRoot(&app{}).Find(strings.Fields(words)[1:])
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err == nil {
				err = found.ValidateArgs(found.Flags().Args())
			}
			if err == nil {
				err = found.ValidateFlagGroups()
			}
			if err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
			}
		}
	}
}

func TestHelpIsNoFailure(t *testing.T) {
	for _, line := range []string{"", "--help", "help networks", "networks -h", "--version"} {
		if code, out, errs := execute(t, strings.Fields(line)...); code != exitOK || out == "" || errs != "" {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", line, code, out, errs)
		}
	}
}

// TestASecondInterruptEndsWhatDoesNotHeedTheFirst lets a command write to a pipe that
// is full.
func TestASecondInterruptEndsWhatDoesNotHeedTheFirst(t *testing.T) {
	path := buildCtl(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(read.Close(), write.Close()) }()
	size, err := unix.FcntlInt(write.Fd(), unix.F_SETPIPE_SZ, 4096)
	if err == nil {
		_, err = write.Write(make([]byte, size))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--help")
	cmd.Stdout = write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }() // if it still runs
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	time.Sleep(time.Second) // until it writes
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		select {
		case <-ended:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Error("cannot be interrupted")
}
