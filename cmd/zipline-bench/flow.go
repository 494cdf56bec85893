// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/zipline-cni/zipline/bench"
)

// traffic runs the benchmark of connections.
func traffic(args []string, stdout, stderr io.Writer) error {
	opts := bench.DefaultTrafficOptions()
	return flow("traffic", &opts, bench.Traffic, args, stdout, stderr)
}

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
	c.pluginFlags(&opts.Zipline, &opts.Plugins)
	c.flags.IntVar(&opts.Rounds, "rounds", opts.Rounds, "paired rounds")
	c.flags.DurationVar(&opts.Duration, "duration", opts.Duration, "time of one measurement")
	c.flags.DurationVar(&opts.Warmup, "warmup", opts.Warmup, "time of a connection before its measurement")
	c.flags.Uint64Var(&opts.Seed, "seed", opts.Seed, "seed of the order in a round and of the intervals")
	c.flags.StringVar((*string)(&opts.Placement), "cpus", string(opts.Placement), "where the ends run: together (on one CPU), apart, free")
	subset(c, "workloads", &opts.Workloads, bench.TCPRR, bench.UDPRR, bench.TCPStream, bench.TCPMaerts)
	if name != "tax" {
		subset(c, "subjects", &opts.Subjects, opts.Subjects...)
	}
	if err := c.parse(args, &opts.Progress); err != nil {
		return err
	}
	return c.run(func(ctx context.Context) (report, error) { return measure(ctx, *opts) })
}

// subset defines a flag that is a choice of some of the values.
func subset[T ~string](c *command, name string, chosen *[]T, values ...T) {
	all := slices.Clone(values)
	c.flags.Func(name, fmt.Sprintf("some of %s (default %s)", join(all), join(*chosen)), func(text string) error {
		*chosen = nil
		for field := range strings.SplitSeq(text, ",") {
			value := T(strings.TrimSpace(field))
			if !slices.Contains(all, value) {
				return fmt.Errorf("%q is not one of %s", value, join(all))
			}
			if slices.Contains(*chosen, value) {
				return errors.New("the same twice")
			}
			*chosen = append(*chosen, value)
		}
		return nil
	})
}

func join[T ~string](values []T) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, string(v))
	}
	return strings.Join(texts, ",")
}
