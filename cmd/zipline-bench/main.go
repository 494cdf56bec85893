// SPDX-License-Identifier: Apache-2.0

// Command zipline-bench measures zipline beside the reference bridge plugin.
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
	"strconv"
	"strings"
	"syscall"

	"github.com/zipline-cni/zipline/bench"
)

const usage = `usage: zipline-bench attach [flags]

attach  measure ADD and DEL in private nodes (root); -help lists the flags
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
	default:
		_, _ = io.WriteString(stderr, usage)
		return errUsage
	}
}

// attach runs the benchmark and writes its report.
func attach(args []string, stdout, stderr io.Writer) error {
	opts := bench.DefaultOptions()
	flags := flag.NewFlagSet("attach", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.Zipline, "zipline", beside("zipline"), "plugin under test")
	flags.StringVar(&opts.Plugins, "plugins", "", "directory of the reference plugins (default: built from the module proxy)")
	flags.IntVar(&opts.Rounds, "rounds", opts.Rounds, "paired rounds at 200 endpoints; a third of them at the other sizes")
	flags.IntVar(&opts.BridgeMax, "bridge-max", opts.BridgeMax, "greatest number of endpoints for the bridge")
	flags.BoolVar(&opts.BridgeNetfilter, "bridge-netfilter", false, "nodes with bridge-nf-call-iptables 1: forwarding is tracked, else direct")
	flags.Uint64Var(&opts.Seed, "seed", opts.Seed, "seed of the order in a round and of the intervals")
	flags.Func("sizes", fmt.Sprintf("numbers of endpoints to measure at, ascending (default %v)", opts.Sizes), func(text string) (err error) {
		opts.Sizes, err = parseSizes(text)
		return err
	})
	check := flags.Bool("check", false, "exit with 1 if a target is missed")
	jsonFile := flags.String("json", "", "write the report with all samples to this file")
	csvFile := flags.String("csv", "", "write the samples to this file")
	quiet := flags.Bool("quiet", false, "no progress on stderr")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if !*quiet {
		opts.Progress = stderr
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := bench.Attach(ctx, opts)
	if err != nil {
		return err
	}
	if err := report.WriteText(stdout); err != nil {
		return err
	}
	if err := errors.Join(writeFile(*jsonFile, report.WriteJSON), writeFile(*csvFile, report.WriteCSV)); err != nil {
		return err
	}
	if missed := report.Missed(); *check && len(missed) > 0 {
		var names []string
		for _, t := range missed {
			names = append(names, t.What)
		}
		return fmt.Errorf("%w: %s", errMissed, strings.Join(names, "; "))
	}
	return nil
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

// writeFile writes a file by write, or nothing for an empty name.
func writeFile(name string, write func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("create report: %w", err)
	}
	return errors.Join(write(file), file.Close())
}

// beside returns the path of a program in this program's own directory.
func beside(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}
