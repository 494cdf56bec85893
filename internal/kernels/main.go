// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/zipline-cni/zipline/internal/reference"
)

// defaultSeries are the kernels that are tested where none is named: the oldest
// with bpf_redirect_peer, without conntrack functions; one with them, without
// TCX; one whose verifier knows less than today's; the last without
// force_forwarding; and the newest.
var defaultSeries = []string{"5.10", "6.1", "6.12", "6.16", "7"}

// errTests says that the table shows something that failed.
var errTests = errors.New("not every test passed on every kernel")

// options are the flags.
type options struct {
	run      string
	packages []string
	timeout  time.Duration
	verbose  bool
	series   []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "kernels:", err)
		stop()
		os.Exit(1)
	}
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("kernels", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.run, "run", "", "run only tests that match (default: what each package has for this)")
	only := flags.String("packages", "", "comma-separated directories of packages to test (default: all that depend on the kernel)")
	flags.DurationVar(&o.timeout, "timeout", 90*time.Minute, "time for one kernel")
	flags.BoolVar(&o.verbose, "v", false, "show all that the tests print")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *only != "" {
		o.packages = strings.Split(*only, ",")
	}
	o.series = flags.Args()
	if len(o.series) == 0 {
		o.series = defaultSeries
	}
	return o, nil
}

// run tests every kernel and prints the tables. Returns [errTests] for a run
// that came to its end and found something.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	cache, err := reference.CacheDir()
	if err != nil {
		return err
	}
	cache = filepath.Join(cache, "kernels")
	work, err := os.MkdirTemp("", "zipline-kernels-")
	if err != nil {
		return fmt.Errorf("make work directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	base, err := newBase(ctx, work, o)
	if err != nil {
		return err
	}
	archive := &archive{dir: filepath.Join(cache, "apt")}
	var reports []*report
	for _, series := range o.series {
		k, err := archive.kernel(ctx, cache, series)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(stderr, "%s: running the tests on %s\n", series, k.release)
		r, err := testKernel(ctx, k, base, filepath.Join(work, series), o, stderr)
		if err != nil {
			return err
		}
		r.summary(stderr)
		reports = append(reports, r)
	}
	if !printTables(stdout, reports) {
		return errTests
	}
	return nil
}
