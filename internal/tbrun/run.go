// SPDX-License-Identifier: Apache-2.0

package tbrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
)

// Run calls f on a goroutine of its own with a TB that lasts until Run returns.
// When f ends, or when ctx does, the TB's cleanups are called, last one first.
//
// What f reports by Error, Fatal and Skip is returned as an error: a program has
// no use for a test that was skipped. When ctx ends first its cause is returned
// and f is left running, as a test is whose time is over: the program is expected
// to exit. Lines of Log go to log.
func Run(ctx context.Context, log io.Writer, f func(testing.TB)) error {
	t := &tb{log: log, ctx: ctx}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(t)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.fail(context.Cause(ctx))
	}
	t.cleanUp()
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.errs...)
}

// tb implements the part of [testing.TB] that makes sense outside of a test. The
// embedded nil interface is there for the rest, which panics.
type tb struct {
	testing.TB
	ctx context.Context
	log io.Writer

	mu       sync.Mutex
	errs     []error
	cleanups []func()
}

// Helper implements [testing.TB].
func (t *tb) Helper() {}

// Name implements [testing.TB].
func (t *tb) Name() string { return "program" }

// Context implements [testing.TB].
func (t *tb) Context() context.Context { return t.ctx }

// Log implements [testing.TB].
func (t *tb) Log(args ...any) { _, _ = fmt.Fprintln(t.log, args...) }

// Logf implements [testing.TB].
func (t *tb) Logf(format string, args ...any) { t.Log(fmt.Sprintf(format, args...)) }

// Error implements [testing.TB].
func (t *tb) Error(args ...any) { t.fail(message(args)) }

// Errorf implements [testing.TB].
func (t *tb) Errorf(format string, args ...any) { t.fail(fmt.Errorf(format, args...)) }

// Fail implements [testing.TB].
func (t *tb) Fail() { t.fail(errors.New("marked as failed")) }

// FailNow implements [testing.TB].
func (t *tb) FailNow() {
	t.Fail()
	runtime.Goexit()
}

// Fatal implements [testing.TB].
func (t *tb) Fatal(args ...any) {
	t.Error(args...)
	runtime.Goexit()
}

// Fatalf implements [testing.TB].
func (t *tb) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

// Skip implements [testing.TB]; see [Run].
func (t *tb) Skip(args ...any) { t.Fatal(args...) }

// Skipf implements [testing.TB]; see [Run].
func (t *tb) Skipf(format string, args ...any) { t.Fatalf(format, args...) }

// Failed implements [testing.TB].
func (t *tb) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.errs) > 0
}

// Cleanup implements [testing.TB].
func (t *tb) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

// TempDir implements [testing.TB].
func (t *tb) TempDir() string {
	dir, err := os.MkdirTemp("", "zipline-")
	if err != nil {
		t.Fatal(fmt.Errorf("make temporary directory: %w", err))
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(fmt.Errorf("remove temporary directory: %w", err))
		}
	})
	return dir
}

func (t *tb) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errs = append(t.errs, err)
}

// cleanUp calls the cleanups on a goroutine of its own each, because one that
// calls Fatal ends it.
func (t *tb) cleanUp() {
	for {
		t.mu.Lock()
		if len(t.cleanups) == 0 {
			t.mu.Unlock()
			return
		}
		last := t.cleanups[len(t.cleanups)-1]
		t.cleanups = t.cleanups[:len(t.cleanups)-1]
		t.mu.Unlock()
		done := make(chan struct{})
		go func() {
			defer close(done)
			last()
		}()
		<-done
	}
}

// message keeps a single error as it is, so that it can be examined.
func message(args []any) error {
	if len(args) == 1 {
		if err, ok := args[0].(error); ok {
			return err
		}
	}
	return errors.New(fmt.Sprint(args...))
}
