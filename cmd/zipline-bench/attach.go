// SPDX-License-Identifier: Apache-2.0

// The command that measures ADD and DEL.

package main

import (
	"context"
	"io"

	"github.com/zipline-cni/zipline/bench"
)

// attach runs the benchmark of ADD and DEL.
func attach(args []string, stdout, stderr io.Writer) error {
	opts := bench.DefaultOptions()
	c := newCommand("attach", stdout, stderr)
	pluginFlags(c.flags, &opts.Zipline, &opts.Plugins)
	c.flags.IntVar(&opts.Rounds, "rounds", opts.Rounds, "paired rounds at 200 endpoints; a third of them at the other sizes")
	c.flags.IntVar(&opts.ReferenceMax, "reference-max", opts.ReferenceMax, "greatest number of endpoints for bridge and ptp")
	c.flags.BoolVar(&opts.BridgeNetfilter, "bridge-netfilter", false, "nodes with bridge-nf-call-iptables 1: forwarding is tracked, else direct")
	c.flags.Uint64Var(&opts.Seed, "seed", opts.Seed, "seed of the order in a round and of the intervals")
	numbers(c.flags, "sizes", "numbers of endpoints to measure at", &opts.Sizes)
	if err := c.parse(args, &opts.Progress); err != nil {
		return err
	}
	return c.run(func(ctx context.Context) (report, error) {
		r, err := bench.Attach(ctx, opts)
		return r, err
	})
}
