// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes (docs/cli.md). They never change.
const (
	exitOK         = 0
	exitFailure    = 1 // the command could not do its work
	exitUsage      = 2 // no such command or flag, or a senseless value
	exitFindings   = 3 // it did, and something on the node is not as it should be
	exitPermission = 4 // this process may not
)

// errFindings makes the exit code 3. What was found has been printed.
var errFindings = errors.New("something is not as it should be")

// usageError is a mistake in the command line.
type usageError struct{ error }

// streams is where a command writes: its result, and what is not its result.
type streams struct {
	out, err io.Writer
	// terminal says that a person watches out, with colours.
	terminal bool
}

// say writes a line that is not the result: an error or a hint.
func (s streams) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.err, "ziplinectl: "+format+"\n", args...) // nowhere else to say it
}

// app is what the commands share.
type app struct {
	streams
	format string
}

// run executes a command line and returns the exit code. SIGINT and SIGTERM end
// a command that goes on until it is told to stop, and are no failure of it.
func run(args []string, s streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second one ends what does not heed the first
	root := newRoot(&app{streams: s})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code := exitCode(err)
	switch {
	case code == exitPermission && os.Geteuid() != 0:
		s.say("%v: run it as root", err)
	case err != nil && code != exitFindings:
		s.say("%v", err)
	}
	return code
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFindings):
		return exitFindings
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, fs.ErrPermission):
		return exitPermission
	default:
		return exitFailure
	}
}

func newRoot(a *app) *cobra.Command {
	cobra.EnableCommandSorting = false // commands has them as people need them
	root := &cobra.Command{
		Use:   "ziplinectl",
		Short: "See and steer what zipline has on this node",
		Long: `ziplinectl shows what zipline has on this node, as the kernel and the lease
files tell it, and changes it where it is told to. It has no configuration and
no daemon: what it prints is what there is at this moment, in the network
namespace that it runs in.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, and something on the node
is not as it should be; 4 not permitted.`,
		Version:                    release,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentFlags().StringVarP(&a.format, "output", "o", formatTable, "table, wide or json")
	completeFlag(root, "output", func() []string { return formats })
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if !slices.Contains(formats, a.format) {
			return usageError{fmt.Errorf("output %q: want one of %s", a.format, strings.Join(formats, ", "))}
		}
		if err := c.ValidateFlagGroups(); err != nil {
			return usageError{err}
		}
		return checkPrivileges(c)
	}
	root.AddCommand(a.commands()...)
	strictArgs(root)
	return root
}

// commands lists the commands, in the order of docs/cli.md.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.statusCommand(),
		a.doctorCommand(),
		a.networksCommand(),
		a.endpointsCommand(),
		a.leasesCommand(),
		a.programsCommand(),
		a.mapsCommand(),
		a.loadCommand(),
		a.attachCommand(),
		a.detachCommand(),
		a.unloadCommand(),
		a.upgradeCommand(),
		a.repairCommand(),
		a.gcCommand(),
		a.progCommand(),
		a.flowsCommand(),
		a.monitorCommand(),
		a.metricsCommand(),
		a.traceCommand(),
		a.captureCommand(),
		a.docsCommand(),
	}
}

// strictArgs makes wrong arguments, and unknown commands of a group, a usage error.
func strictArgs(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	c.Args = func(c *cobra.Command, args []string) error {
		err := check(c, args)
		if err == nil {
			return nil
		}
		if like := c.SuggestionsFor(strings.Join(args[:min(len(args), 1)], "")); len(like) > 0 {
			err = fmt.Errorf("%w: do you mean %s?", err, strings.Join(like, " or "))
		}
		return usageError{err}
	}
	for _, child := range c.Commands() {
		strictArgs(child)
	}
}
