// SPDX-License-Identifier: Apache-2.0

package rcu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// files makes a stand-in for the knob, since the real one is the machine's.
func files(t *testing.T, value string) (knob, state string) {
	t.Helper()
	dir := t.TempDir()
	knob, state = filepath.Join(dir, "knob"), filepath.Join(dir, "run", "rcu")
	if err := os.WriteFile(knob, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
	return knob, state
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestKnobIsSetDuringAndPutBackAfter(t *testing.T) {
	knob, state := files(t, "0\n")
	cause := errors.New("cause")
	err := expedite(knob, state, func() error {
		if got := content(t, knob); !strings.HasPrefix(got, "1") {
			t.Errorf("knob is %q", got)
		}
		return cause
	})
	if !errors.Is(err, cause) {
		t.Errorf("error is %v", err)
	}
	if got := content(t, knob); !strings.HasPrefix(got, "0") {
		t.Errorf("knob is %q afterwards", got)
	}
}

func TestAdministratorsKnobStays(t *testing.T) {
	knob, state := files(t, "1\n")
	if err := expedite(knob, state, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if got := content(t, knob); got != "1" {
		t.Errorf("knob is %q", got)
	}
}

func TestLeftoverOfAKilledProcessIsPutBack(t *testing.T) {
	knob, state := files(t, "0\n")
	release, err := enter(knob, state)
	if err != nil {
		t.Fatal(err)
	}
	_ = release // never called: the process was killed, and its lock went with it
	copied, copiedState := files(t, content(t, knob))
	if err := os.MkdirAll(filepath.Dir(copiedState), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copiedState, []byte(content(t, state)), 0o600); err != nil {
		t.Fatal(err)
	}
	settle(copied, copiedState)
	if got := content(t, copied); !strings.HasPrefix(got, "0") {
		t.Errorf("knob is %q after the next user", got)
	}
	release()
}

func TestLastOfManyPutsItBack(t *testing.T) {
	knob, state := files(t, "0\n")
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 50 {
				err := expedite(knob, state, func() error {
					if got := content(t, knob); !strings.HasPrefix(got, "1") {
						t.Errorf("knob is %q", got)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := content(t, knob); !strings.HasPrefix(got, "0") {
		t.Errorf("knob is %q afterwards", got)
	}
	if note := content(t, state); note != "" {
		t.Errorf("note %q is left", note)
	}
}

func TestWithoutKnobTheWorkIsDone(t *testing.T) {
	knob, state := files(t, "0")
	if err := os.Remove(knob); err != nil {
		t.Fatal(err)
	}
	done := false
	if err := expedite(knob, state, func() error { done = true; return nil }); err != nil || !done {
		t.Errorf("done %v, error %v", done, err)
	}
}

func TestAProcessThatHangsWithTheLockHoldsUpNobody(t *testing.T) {
	knob, state := files(t, "0\n")
	if err := os.MkdirAll(filepath.Dir(state), 0o700); err != nil {
		t.Fatal(err)
	}
	hanging, err := os.Create(state)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hanging.Close() }() // nothing was written
	if err := flock(hanging, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan string, 1)
	go func() {
		_ = expedite(knob, state, func() error { done <- content(t, knob); return nil })
	}()
	select {
	case got := <-done:
		if got != "0" {
			t.Errorf("knob is %q without the lock", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("the work waits for the lock")
	}
}
