// SPDX-License-Identifier: Apache-2.0

// The commands that measure connections.

package main

import (
	"context"
	"flag"
	"io"

	"github.com/zipline-cni/zipline/bench"
)

// tax runs the benchmark of everybody else's connections.
func tax(args []string, stdout, stderr io.Writer) error {
	opts := bench.DefaultTaxOptions()
	return flow("tax", &opts, bench.Tax, args, stdout, stderr)
}

// observe runs the benchmark of ziplinectl's trace and capture.
func observe(args []string, stdout, stderr io.Writer) error {
	opts := bench.DefaultObserveOptions()
	opts.Ziplinectl = beside("ziplinectl")
	return flow("observe", &opts.FlowOptions, func(ctx context.Context, _ bench.FlowOptions) (*bench.FlowReport, error) {
		return bench.Observe(ctx, opts)
	}, args, stdout, stderr)
}

func flow(name string, opts *bench.FlowOptions, measure func(context.Context, bench.FlowOptions) (*bench.FlowReport, error),
	args []string, stdout, stderr io.Writer,
) error {
	c := newCommand(name, stdout, stderr)
	pluginFlags(c.flags, &opts.Zipline, &opts.Plugins)
	c.flags.IntVar(&opts.Rounds, "rounds", opts.Rounds, "paired rounds")
	flowFlags(c.flags, opts)
	subset(c.flags, "workloads", &opts.Workloads, bench.TCPRR, bench.UDPRR, bench.TCPStream, bench.TCPMaerts)
	if name != "tax" {
		subset(c.flags, "subjects", &opts.Subjects, opts.Subjects...)
	}
	if err := c.parse(args, &opts.Progress); err != nil {
		return err
	}
	return c.run(func(ctx context.Context) (report, error) { return measure(ctx, *opts) })
}

// flowFlags defines the flags that say how a connection is measured.
func flowFlags(flags *flag.FlagSet, opts *bench.FlowOptions) {
	flags.DurationVar(&opts.Duration, "duration", opts.Duration, "time of one measurement")
	flags.DurationVar(&opts.Warmup, "warmup", opts.Warmup, "time of a connection before its measurement")
	flags.Uint64Var(&opts.Seed, "seed", opts.Seed, "seed of the order in a round and of the intervals")
	flags.StringVar((*string)(&opts.Placement), "cpus", string(opts.Placement), "where the ends run: together (on one CPU), apart, free")
}
