// SPDX-License-Identifier: Apache-2.0

// The command that makes the README's table.

package main

import (
	"fmt"
	"io"

	benchreport "github.com/zipline-cni/zipline/bench/report"
)

// table writes the table of a file of results, or puts it into a page.
func table(args []string, stdout, stderr io.Writer) error {
	flags := newFileFlags("table", "results.json", stderr)
	readme := flags.String("readme", "", "page to put it into, between <!-- zipline-bench table --> and <!-- end of zipline-bench table -->")
	names, err := parseFiles(flags, args, 1)
	if err != nil {
		return err
	}
	if *readme != "" {
		return benchreport.WriteTable(*readme, names[0])
	}
	results, err := benchreport.ReadFile(names[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(stdout, benchreport.New(results).Table())
	return err
}
