// SPDX-License-Identifier: Apache-2.0

// Command zipline-bench measures zipline beside other plugins and beside the limits.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/zipline-cni/zipline/bench"
)

const usage = `usage: zipline-bench run|report|compare|table|attach|tax|observe [flags]

run      compare zipline with other plugins and with the limits: connections, ADD and DEL
report   make a page with pictures from the results of a run
compare  say what has regressed from one run to another
table    make the README's table from the results of a run
attach   measure ADD and DEL alone, beside the bridge plugin
tax      measure what the programs on the uplink cost everybody else
observe  measure what it costs connections to be traced or captured

What measures does so in private nodes (root); -help lists the flags.
`

var (
	errUsage  = errors.New("usage")
	errMissed = errors.New("targets missed")
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		_, _ = fmt.Fprintln(os.Stderr, "zipline-bench:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case bench.AgentCommand:
		return bench.ServeAgent(os.Stdin, stdout)
	case "attach":
		return attach(args[1:], stdout, stderr)
	case "run":
		return compareAll(args[1:], stdout, stderr)
	case "tax":
		return tax(args[1:], stdout, stderr)
	case "observe":
		return observe(args[1:], stdout, stderr)
	case "report":
		return page(args[1:], stdout, stderr)
	case "compare":
		return compare(args[1:], stdout, stderr)
	case "table":
		return table(args[1:], stdout, stderr)
	default:
		_, _ = io.WriteString(stderr, usage)
		return errUsage
	}
}
