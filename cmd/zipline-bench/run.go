// SPDX-License-Identifier: Apache-2.0

// The command of the whole comparison.

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
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/zipline-cni/zipline/bench"
	benchreport "github.com/zipline-cni/zipline/bench/report"
)

var quickFlag = regexp.MustCompile(`^--?quick(=true)?$`)

// compareAll runs the whole comparison.
func compareAll(args []string, stdout, stderr io.Writer) error {
	opts, out, err := runOptions(args, stderr)
	if err != nil {
		return err
	}
	// Before half an hour of work.
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("make directory of results: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results, err := bench.Run(ctx, opts)
	if results == nil {
		return err
	}
	// Of an interrupted run, too: what there is may be all that its owner wants.
	err = errors.Join(err, benchreport.WriteAll(out, results))
	for _, f := range results.Failures {
		_, _ = fmt.Fprintf(stderr, "left out: %s %s: %s\n", f.Subject, f.What, f.Why)
	}
	if results.Incomplete != "" {
		err = errors.Join(err, fmt.Errorf("the results are not complete: %s", results.Incomplete))
	}
	_, _ = fmt.Fprintln(stdout, filepath.Join(out, benchreport.PageFile))
	return err
}

// runOptions reads the flags. A flag changes what -quick has chosen, wherever it stands.
func runOptions(args []string, stderr io.Writer) (opts bench.RunOptions, out string, err error) {
	defaults := bench.DefaultRunOptions
	if slices.ContainsFunc(args, func(arg string) bool { return quickFlag.MatchString(arg) }) {
		defaults = bench.QuickRunOptions
	}
	if opts, err = defaults(); err != nil {
		return opts, "", err
	}
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolFunc("quick", "less of everything, in two minutes: to see that it works", func(value string) error {
		if value != "true" { // which the defaults have not heard of
			return errors.New("say -quick, or leave it out")
		}
		return nil
	})
	flags.StringVar(&out, "out", time.Now().Format("zipline-bench-20060102-150405"), "directory for the results")
	pluginFlags(flags, &opts.Zipline, &opts.Plugins)
	flags.IntVar(&opts.Rounds, "rounds", 0, "greatest number of paired rounds (default: as the budget has the time for)")
	flags.IntVar(&opts.Least, "least", opts.Least, "number of rounds that the budget does not limit")
	flags.DurationVar(&opts.Budget, "budget", opts.Budget, "time for the rounds of connections")
	flowFlags(flags, &opts.FlowOptions)
	var files []string
	flags.Func("cases", "files of cases to measure beside the others, with commas between them", func(text string) error {
		files = listed(text)
		return nil
	})
	subset(flags, "paths", &opts.Paths, bench.Paths...)
	subset(flags, "workloads", &opts.Workloads, bench.Workloads...)
	caseNames(flags, "subjects", "measure", &opts.Subjects)
	numbers(flags, "connections", "numbers of connections at a time", &opts.Connections)
	numbers(flags, "growth", "numbers of endpoints of the networks that grow", &opts.Growth.Sizes)
	noGrowth := flags.Bool("no-growth", false, "leave out the networks that grow")
	noAttach := flags.Bool("no-attach", false, "leave out ADD and DEL")
	quiet := flags.Bool("quiet", false, "no progress on stderr")
	if err := parse(flags, args); err != nil {
		return opts, "", err
	}
	if *noGrowth {
		opts.Growth.Sizes = nil
	}
	if *noAttach {
		opts.Attach = nil
	}
	if !*quiet {
		opts.Progress = stderr
	}
	added := len(opts.Cases)
	if opts.Cases, err = bench.AddCases(opts.Cases, files...); err != nil {
		return opts, "", fmt.Errorf("%w: %w", errUsage, err)
	}
	// Who adds a case wants to see it.
	for _, c := range opts.Cases[added:] {
		if len(opts.Subjects) > 0 && !slices.Contains(opts.Subjects, c.Name) {
			opts.Subjects = append(opts.Subjects, c.Name)
		}
	}
	return opts, out, nil
}
