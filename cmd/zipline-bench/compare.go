// SPDX-License-Identifier: Apache-2.0

// The command that compares two files of results.

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/zipline-cni/zipline/bench"
	benchreport "github.com/zipline-cni/zipline/bench/report"
)

var errRegressed = errors.New("regressed")

// compare says what has changed from one run to another.
func compare(args []string, stdout, stderr io.Writer) error {
	flags := newFileFlags("compare", "before.json after.json", stderr)
	check := flags.Bool("check", false, "exit with 1 if anything has regressed")
	all := flags.Bool("all", false, "show what has not changed, too")
	var cases []bench.Subject
	caseNames(flags, "cases", "compare", &cases)
	names, err := parseFiles(flags, args, 2)
	if err != nil {
		return err
	}
	var runs [2]*bench.Results
	for i, name := range names {
		if runs[i], err = benchreport.ReadFile(name); err != nil {
			return err
		}
	}
	c, err := benchreport.Compare(runs[0], runs[1], cases...)
	if err != nil {
		return err
	}
	if err := c.WriteText(stdout, *all); err != nil {
		return err
	}
	if worse := c.Regressions(); *check && len(worse) > 0 {
		return fmt.Errorf("%w: %d of %d", errRegressed, len(worse), len(c.Changes))
	}
	return nil
}
