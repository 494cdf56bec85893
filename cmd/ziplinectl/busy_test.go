// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestCommandsWhileContainersComeAndGo looks at endpoints that are half made and
// half gone: that is no error, and nothing is wrong.
func TestCommandsWhileContainersComeAndGo(t *testing.T) {
	s := newStage(t, testrig.Options{})
	conf := config("net", "direct", 62)
	s.attach(conf)
	var done atomic.Bool
	looks := 0
	var wait sync.WaitGroup
	wait.Go(func() {
		for ; !done.Load(); looks++ {
			for _, line := range []string{"status", "networks", "endpoints -o wide", "leases", "programs", "maps"} {
				err := s.Node.Do(func() error {
					if code, out, errs := execute(t, strings.Fields(line)...); code != exitOK {
						t.Errorf("%s: exit code %d, stderr %q\n%s", line, code, errs, out)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 12 {
		a := s.attach(conf)
		if err := a.Invoke(t, "DEL", conf).Err(); err != nil {
			t.Error(err)
		}
		s.attach(conf).Kill(t) // and the kernel takes its device away
	}
	done.Store(true)
	wait.Wait()
	if looks < 3 {
		t.Errorf("only %d looks", looks)
	}
}

func TestLookingChangesNothing(t *testing.T) {
	s := newStage(t, testrig.Options{})
	for _, node := range []string{"fresh", "used"} {
		before := s.Node.Snapshot(t)
		for _, command := range []string{"status", "networks", "endpoints", "leases", "programs", "maps"} {
			if code, _, errs := s.run(command); code != exitOK {
				t.Errorf("%s: exit code %d, stderr %q", command, code, errs)
			}
		}
		if diff := before.Diff(s.Node.Snapshot(t)); len(diff) > 0 {
			t.Errorf("%s node: %q", node, diff)
		}
		s.attach(config("net", "direct", 62))
	}
}

// without executes a command line on a thread that lacks a capability.
func (s *stage) without(capability uint, args ...string) (code int, stdout, stderr string) {
	s.tb.Helper()
	err := s.Node.Do(func() error {
		// The thread ends with the call, and its privileges with it.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		data[capability/32].Effective &^= 1 << (capability % 32)
		if err := unix.Capset(&header, &data[0]); err != nil {
			return err
		}
		code, stdout, stderr = execute(s.tb, args...)
		return nil
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return code, stdout, stderr
}

func TestCommandsSayWhatTheyNeed(t *testing.T) {
	s := newStage(t, testrig.Options{})
	s.attach(config("net", "direct", 62))
	for _, command := range []string{"status", "networks", "endpoints", "programs", "maps"} {
		for name, capability := range map[string]uint{"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN} {
			code, out, errs := s.without(capability, command)
			if code != exitPermission || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, name) {
				t.Errorf("%s without %s: exit code %d, stdout %q, stderr %q", command, name, code, out, errs)
			}
		}
		// It says so because it needs it, not to be on the safe side: see needsRoot.
		if code, _, errs := s.without(unix.CAP_SYS_PTRACE, command); code != exitOK {
			t.Errorf("%s without CAP_SYS_PTRACE: exit code %d, stderr %q", command, code, errs)
		}
	}
	if code, _, errs := s.without(unix.CAP_NET_ADMIN, "leases"); code != exitOK {
		t.Errorf("leases, which only reads files: exit code %d, stderr %q", code, errs)
	}
	err := s.Node.Do(func() error {
		if err := unix.Setfsuid(65534); err != nil {
			return err
		}
		if code, out, errs := execute(t, "leases"); code != exitPermission || out != "" || !strings.Contains(errs, "permission denied") {
			t.Errorf("leases as nobody: exit code %d, stdout %q, stderr %q", code, out, errs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
