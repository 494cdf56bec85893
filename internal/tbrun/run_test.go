// SPDX-License-Identifier: Apache-2.0

package tbrun_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/tbrun"
)

var errCause = errors.New("the cause")

func TestRunReturnsWhatFReports(t *testing.T) {
	for _, c := range []struct {
		name string
		f    func(testing.TB)
		want string
	}{
		{"nothing", func(testing.TB) {}, ""},
		{"errors and goes on", func(tb testing.TB) { tb.Error("one"); tb.Errorf("two %d", 2) }, "one\ntwo 2"},
		{"a fatal error and ends", func(tb testing.TB) { tb.Fatal("one"); tb.Error("two") }, "one"},
		{"a skip", func(tb testing.TB) { tb.Skipf("needs %s", "root") }, "needs root"},
	} {
		err := tbrun.Run(t.Context(), io.Discard, c.f)
		if got := text(err); got != c.want {
			t.Errorf("f reports %s: %q; want %q", c.name, got, c.want)
		}
	}
}

func TestFatalErrorKeepsItsIdentity(t *testing.T) {
	err := tbrun.Run(t.Context(), io.Discard, func(tb testing.TB) { tb.Fatal(errCause) })
	if !errors.Is(err, errCause) {
		t.Errorf("%v is not the error given to Fatal", err)
	}
}

func TestCleanupsRunLastFirstAlsoAfterFatal(t *testing.T) {
	var order []string
	err := tbrun.Run(t.Context(), io.Discard, func(tb testing.TB) {
		tb.Cleanup(func() { order = append(order, "first") })
		tb.Cleanup(func() { tb.Fatal("in a cleanup") })
		tb.Cleanup(func() { order = append(order, "last") })
		tb.Fatal("in f")
	})
	if got := strings.Join(order, " "); got != "last first" {
		t.Errorf("cleanups ran as %q", got)
	}
	if got := text(err); got != "in f\nin a cleanup" {
		t.Errorf("reported %q", got)
	}
}

func TestEndOfContextCleansUpAndReturnsItsCause(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	var dir string
	err := tbrun.Run(ctx, io.Discard, func(tb testing.TB) {
		dir = tb.TempDir()
		cancel(errCause)
		select {}
	})
	if !errors.Is(err, errCause) {
		t.Errorf("%v; want the context's cause", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("temporary directory %s: %v; want it gone", dir, err)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
