// SPDX-License-Identifier: Apache-2.0

// What the commands have in common that measure: flags, output, targets.

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

	"github.com/zipline-cni/zipline/bench"
)

// report is what a benchmark gives.
type report interface {
	WriteText(w io.Writer) error
	WriteJSON(w io.Writer) error
	WriteCSV(w io.Writer) error
	Missed() []bench.Target
}

// command is the flags of a benchmark that gives one report, and where its output goes.
type command struct {
	flags          *flag.FlagSet
	stdout, stderr io.Writer

	check, quiet      bool
	jsonFile, csvFile string
}

// newCommand returns a command with the flags that every benchmark has.
func newCommand(name string, stdout, stderr io.Writer) *command {
	c := &command{flags: flag.NewFlagSet(name, flag.ContinueOnError), stdout: stdout, stderr: stderr}
	c.flags.SetOutput(stderr)
	c.flags.BoolVar(&c.check, "check", false, "exit with 1 if a target is missed")
	c.flags.StringVar(&c.jsonFile, "json", "", "write the report with all samples to this file")
	c.flags.StringVar(&c.csvFile, "csv", "", "write the samples to this file")
	c.flags.BoolVar(&c.quiet, "quiet", false, "no progress on stderr")
	return c
}

// pluginFlags defines the flags that say which plugins are measured.
func pluginFlags(flags *flag.FlagSet, zipline, plugins *string) {
	flags.StringVar(zipline, "zipline", beside("zipline"), "plugin under test")
	flags.StringVar(plugins, "plugins", "", "directory of the reference plugins (default: built from the module proxy)")
}

// parse reads the flags.
func parse(flags *flag.FlagSet, args []string) error {
	err := flags.Parse(args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q is not a flag", flags.Arg(0))
		_, _ = fmt.Fprintln(flags.Output(), err)
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return fmt.Errorf("%w: %w", errUsage, err)
}

// parse reads the flags and says where progress goes.
func (c *command) parse(args []string, progress *io.Writer) error {
	if err := parse(c.flags, args); err != nil {
		return err
	}
	if !c.quiet {
		*progress = c.stderr
	}
	return nil
}

// run measures and writes the report.
func (c *command) run(measure func(context.Context) (report, error)) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := measure(ctx)
	if err != nil {
		return err
	}
	if err := r.WriteText(c.stdout); err != nil {
		return err
	}
	if err := errors.Join(writeFile(c.jsonFile, r.WriteJSON), writeFile(c.csvFile, r.WriteCSV)); err != nil {
		return err
	}
	if missed := r.Missed(); c.check && len(missed) > 0 {
		var names []string
		for _, t := range missed {
			names = append(names, t.What)
		}
		return fmt.Errorf("%w: %s", errMissed, strings.Join(names, "; "))
	}
	return nil
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
