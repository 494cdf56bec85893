// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace and, for a node, a mount namespace. It lives
// as long as its file descriptors.
type Namespace struct {
	// Name appears in messages.
	Name string
	net  *os.File
	mnt  *os.File // nil: the machine's mounts
}

// The process's first thread never ends, so a namespace that it once entered would
// live as long as the process. This keeps it for the main goroutine.
func init() { runtime.LockOSThread() }

// Do calls f on a thread of its own inside the namespace. Sockets that f opens
// stay in the namespace; goroutines that f starts do not. f must not end its
// goroutine (tb.Fatal): that is returned as an error.
func (ns *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if ns.mnt != nil {
			// setns of mounts is refused to a thread that shares its root
			// and working directory with others.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare file system context: %w", err)
			}
			if err := unix.Setns(int(ns.mnt.Fd()), unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter mounts of %s: %w", ns.Name, err)
			}
		}
		if err := unix.Setns(int(ns.net.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network of %s: %w", ns.Name, err)
		}
		return f()
	})
}

// Run executes a program inside the namespace and returns what it printed on
// stdout, trimmed. The error of a program that exits with another status than 0
// holds its stderr. The program dies with the test process.
func (ns *Namespace) Run(name string, args ...string) (string, error) {
	return ns.run("", name, args...)
}

// RunInput is Run with text on the program's stdin.
func (ns *Namespace) RunInput(stdin, name string, args ...string) (string, error) {
	return ns.run(stdin, name, args...)
}

// MustRun is Run that fails the test on an error.
func (ns *Namespace) MustRun(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := ns.Run(name, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// MustRunInput is RunInput that fails the test on an error.
func (ns *Namespace) MustRunInput(tb testing.TB, stdin, name string, args ...string) string {
	tb.Helper()
	out, err := ns.RunInput(stdin, name, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Sysctl returns the value of a key below net., with slashes in place of dots.
// The second value is false where the kernel has no such key.
func (ns *Namespace) Sysctl(tb testing.TB, key string) (string, bool) {
	tb.Helper()
	var value []byte
	err := ns.Do(func() (err error) {
		value, err = os.ReadFile(filepath.Join("/proc/sys/net", key))
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		return "", false
	}
	if err != nil {
		tb.Fatalf("read sysctl %s of %s: %v", key, ns.Name, err)
	}
	return strings.TrimSpace(string(value)), true
}

// SetSysctl writes the value of a key below net., with slashes in place of dots.
func (ns *Namespace) SetSysctl(tb testing.TB, key, value string) {
	tb.Helper()
	err := ns.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0)
	})
	if err != nil {
		tb.Fatalf("write sysctl %s of %s: %v", key, ns.Name, err)
	}
}

// Close lets go of the namespace. The kernel removes it when nothing else
// (a socket, a mount) holds it.
func (ns *Namespace) Close() {
	_ = ns.net.Close()
	if ns.mnt != nil {
		_ = ns.mnt.Close()
	}
}

func (ns *Namespace) run(stdin, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	err := ns.Do(func() error {
		cmd := exec.Command(name, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if stdin != "" {
			cmd.Stdin = strings.NewReader(stdin)
		}
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		return cmd.Run()
	})
	if err != nil {
		err = fmt.Errorf("%s: %s %s: %w\n%s", ns.Name, name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), err
}

// newNamespace makes a network namespace and, with CLONE_NEWNS in flags, a mount
// namespace, and calls setup inside of them.
func newNamespace(name string, flags int, setup func() error) (*Namespace, error) {
	ns := &Namespace{Name: name}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET | flags); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		var err error
		// /proc/self is the thread group's leader; this thread alone moved.
		if ns.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if flags&unix.CLONE_NEWNS != 0 {
			if ns.mnt, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
				return err
			}
		}
		return setup()
	})
	if err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	return ns, nil
}

// onThread calls f on a thread that ends with the call, so that no other
// goroutine ever runs in a namespace that f moved the thread to.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := errors.New("function ended its goroutine")
		defer func() { result <- err }()
		err = f()
	}()
	return <-result
}
