// SPDX-License-Identifier: Apache-2.0

// The command lines of what reads files of results.

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// newFileFlags returns the flags of a command that reads files of results.
func newFileFlags(name, files string, stderr io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprintf(stderr, "usage: zipline-bench %s %s [flags]\n", name, files)
		flags.PrintDefaults()
	}
	return flags
}

// parseFiles reads flags with so many names of files before, between or behind them.
func parseFiles(flags *flag.FlagSet, args []string, count int) ([]string, error) {
	var names []string
	for {
		if err := flags.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		if flags.NArg() == 0 {
			break
		}
		names, args = append(names, flags.Arg(0)), flags.Args()[1:]
	}
	if len(names) != count {
		flags.Usage()
		return nil, fmt.Errorf("%w: %d files of results, not %d", errUsage, len(names), count)
	}
	return names, nil
}
