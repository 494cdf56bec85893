// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/zipline-cni/zipline/internal/tbrun"
)

// errUntrue says that the screen shows something that should not be so.
var errUntrue = errors.New("not all of it is true")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Stderr, hooks{}); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

// hooks are where a test breaks something that the demo then has to notice.
type hooks struct {
	attached func(*demo) // after the containers are attached
	detached func(*demo) // before the demo looks for what is left
}

// run shows the demo on stdout. Returns [errUntrue] for a demo that came to its
// end and is not as it should be.
func run(ctx context.Context, stdout, stderr io.Writer, h hooks) error {
	return tbrun.Run(ctx, stderr, func(tb testing.TB) {
		d := newDemo(tb, h)
		d.show()
		if _, err := d.screen.WriteTo(stdout); err != nil {
			tb.Fatal(fmt.Errorf("print: %w", err))
		}
		if len(d.screen.untrue) > 0 {
			tb.Error(errors.Join(append(d.screen.untrue, errUntrue)...))
		}
	})
}
