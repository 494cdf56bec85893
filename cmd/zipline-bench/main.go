// SPDX-License-Identifier: Apache-2.0

// Command zipline-bench measures zipline beside the reference bridge plugin.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/zipline-cni/zipline/bench"
)

const usage = `usage: zipline-bench attach|traffic|tax|observe [flags]

attach   measure ADD and DEL beside the bridge plugin
traffic  measure connections of containers beside the bridge plugin and a bare wire
tax      measure what the programs on the uplink cost everybody else
observe  measure what it costs connections to be traced or captured

Each in private nodes (root); -help lists the flags.
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
	case "traffic":
		return traffic(args[1:], stdout, stderr)
	case "tax":
		return tax(args[1:], stdout, stderr)
	case "observe":
		return observe(args[1:], stdout, stderr)
	default:
		_, _ = io.WriteString(stderr, usage)
		return errUsage
	}
}
