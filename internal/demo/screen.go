// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"strings"
	"text/tabwriter"
)

// screen is the text that the demo prints, and what in it is untrue.
type screen struct {
	bytes.Buffer
	untrue []error
}

// title begins a part.
func (s *screen) title(text string) {
	if s.Len() > 0 {
		s.line("")
	}
	s.line(text)
}

func (s *screen) line(format string, args ...any) {
	_, _ = fmt.Fprintf(s, strings.TrimRight(format, " ")+"\n", args...) // into memory
}

// table prints rows of cells in columns. The last column is not padded.
func (s *screen) table(rows [][]string) {
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		_, _ = fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
	}
	_ = w.Flush()
	for line := range strings.Lines(text.String()) {
		s.line("%s", strings.TrimRight(line, " \n"))
	}
}

// check returns the mark of a statement, and notes one that is untrue.
func (s *screen) check(ok bool, format string, args ...any) string {
	if ok {
		return "✓"
	}
	s.untrue = append(s.untrue, fmt.Errorf(format, args...))
	return "✗"
}
