// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// execute runs a command line and returns its exit code and what it wrote.
func execute(tb testing.TB, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	var out, errs bytes.Buffer
	code = run(args, streams{out: &out, err: &errs})
	return code, out.String(), errs.String()
}

// inNode does it in a node.
func inNode(tb testing.TB, n *testrig.Node, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	err := n.Do(func() error {
		code, stdout, stderr = execute(tb, args...)
		return nil
	})
	if err != nil {
		tb.Fatalf("ziplinectl %s: %v", strings.Join(args, " "), err)
	}
	return code, stdout, stderr
}

func TestUsageErrors(t *testing.T) {
	for _, line := range []string{"nope", "networks extra", "networks --nope", "networks -o yaml", "networks -o"} {
		code, out, errs := execute(t, strings.Fields(line)...)
		if code != exitUsage || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", line, code, out, errs)
		}
	}
}

func TestEveryCommandHasAnExampleAndOneLineOfHelp(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		for _, child := range c.Commands() {
			visit(child)
		}
		if !c.Runnable() || !c.HasParent() {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || !strings.Contains(c.Example, "ziplinectl") {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
	}
	visit(newRoot(&app{}))
}

// TestExamplesAreWellFormed parses each line of each example, up to a pipe.
func TestExamplesAreWellFormed(t *testing.T) {
	for _, c := range documented(newRoot(&app{})) {
		for line := range strings.Lines(c.Example) {
			words, _, _ := strings.Cut(line, "|")
			found, rest, err := newRoot(&app{}).Find(strings.Fields(words)[1:])
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err == nil {
				err = found.ValidateArgs(found.Flags().Args())
			}
			if err == nil {
				err = found.ValidateFlagGroups()
			}
			if err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
			}
		}
	}
}

func TestHelpIsNoFailure(t *testing.T) {
	for _, line := range []string{"", "--help", "help networks", "networks -h", "--version"} {
		if code, out, errs := execute(t, strings.Fields(line)...); code != exitOK || out == "" || errs != "" {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", line, code, out, errs)
		}
	}
}
