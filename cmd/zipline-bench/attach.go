// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/zipline-cni/zipline/bench"
)

// attach runs the benchmark of ADD and DEL.
func attach(args []string, stdout, stderr io.Writer) error {
	opts := bench.DefaultOptions()
	c := newCommand("attach", stdout, stderr)
	pluginFlags(c.flags, &opts.Zipline, &opts.Plugins)
	c.flags.IntVar(&opts.Rounds, "rounds", opts.Rounds, "paired rounds at 200 endpoints; a third of them at the other sizes")
	c.flags.IntVar(&opts.BridgeMax, "bridge-max", opts.BridgeMax, "greatest number of endpoints for the bridge")
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

// numbers defines a flag that is a list of numbers.
func numbers(flags *flag.FlagSet, name, what string, chosen *[]int) {
	flags.Func(name, fmt.Sprintf("%s, ascending (default %v)", what, *chosen), func(text string) (err error) {
		*chosen, err = parseSizes(text)
		return err
	})
}

// parseSizes reads ascending positive numbers with commas between them.
func parseSizes(text string) ([]int, error) {
	var sizes []int
	for field := range strings.SplitSeq(text, ",") {
		size, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil {
			return nil, err
		}
		if size < 1 || len(sizes) > 0 && size <= sizes[len(sizes)-1] {
			return nil, errors.New("not ascending from 1 on")
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}
