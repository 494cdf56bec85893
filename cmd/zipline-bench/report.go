// SPDX-License-Identifier: Apache-2.0

// The command that makes a page of results.

package main

import (
	"fmt"
	"io"
	"path/filepath"

	benchreport "github.com/zipline-cni/zipline/bench/report"
)

// page writes the report of a file of results.
func page(args []string, stdout, stderr io.Writer) error {
	flags := newFileFlags("report", "results.json", stderr)
	dir := flags.String("out", ".", "directory for the page and its pictures")
	names, err := parseFiles(flags, args, 1)
	if err != nil {
		return err
	}
	results, err := benchreport.ReadFile(names[0])
	if err != nil {
		return err
	}
	if err := benchreport.New(results).Write(*dir); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(stdout, filepath.Join(*dir, benchreport.PageFile))
	return nil
}
