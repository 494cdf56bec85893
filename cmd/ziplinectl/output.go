// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// The values of --output.
const (
	formatTable = "table"
	formatWide  = "wide" // a table with more columns, where the command has them
	formatJSON  = "json"
)

var formats = []string{formatTable, formatWide, formatJSON}

// wide says whether the table is to have all columns.
func (a *app) wide() bool { return a.format == formatWide }

// print writes v as JSON, or as the table that rows fills. JSON field names are
// an interface of the program (docs/cli.md); a list is never null.
func (a *app) print(v any, rows func(t *grid)) error {
	if a.format == formatJSON {
		encoder := json.NewEncoder(a.out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(v); err != nil {
			return fmt.Errorf("write json: %w", err)
		}
		return nil
	}
	t := &grid{color: a.terminal}
	rows(t)
	if _, err := fmt.Fprint(a.out, t.text()); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// printDone writes what a command did. Who did nothing says so: silence is for programs.
func printDone[T any](a *app, list []T, rows func(t *grid)) error {
	if len(list) == 0 && a.format != formatJSON {
		a.say("nothing to do")
		return nil
	}
	return a.print(list, rows)
}

// printLine writes v as JSON in one line, or the text.
func (a *app) printLine(v any, text string) error {
	if a.format == formatJSON {
		line, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("write json: %w", err)
		}
		text = string(line)
	}
	if _, err := fmt.Fprintln(a.out, text); err != nil {
		return fmt.Errorf("write line: %w", err)
	}
	return nil
}

// grid is a table for people: a line of headings, columns as wide as needed,
// nothing around them, so that cut and awk work on it.
type grid struct {
	color bool
	head  []string
	rows  [][]string
}

func (g *grid) heading(cells ...string) { g.head = cells }
func (g *grid) row(cells ...string)     { g.rows = append(g.rows, cells) }

// good, bad and dim colour a cell where a person watches.
func (g *grid) good(s string) string { return g.paint(s, text.FgGreen) }
func (g *grid) bad(s string) string  { return g.paint(s, text.FgRed) }
func (g *grid) dim(s string) string  { return g.paint(s, text.Faint) }

func (g *grid) paint(s string, colors ...text.Color) string {
	if !g.color || s == "" {
		return s
	}
	return text.Colors(colors).Sprint(s)
}

// text returns the lines. An empty cell is a dash, so that columns can be counted.
func (g *grid) text() string {
	w := table.NewWriter()
	w.SetStyle(table.Style{
		Box:     table.BoxStyle{PaddingRight: "  "},
		Format:  table.FormatOptions{Header: text.FormatDefault},
		Options: table.OptionsNoBordersAndSeparators,
	})
	w.SuppressTrailingSpaces()
	if len(g.head) > 0 {
		w.AppendHeader(cells(g.head))
	}
	for _, row := range g.rows {
		w.AppendRow(cells(row))
	}
	return w.Render() + "\n"
}

func cells(line []string) table.Row {
	row := make(table.Row, len(line))
	for i, cell := range line {
		if cell == "" {
			cell = "-"
		}
		row[i] = cell
	}
	return row
}
