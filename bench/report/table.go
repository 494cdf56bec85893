// SPDX-License-Identifier: Apache-2.0

// The table of the README: made from a file of results, never typed.

package report

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/zipline-cni/zipline/bench"
)

// tableCells are the rows of the table, with one connection.
var tableCells = []Cell{
	{bench.Local, bench.TCPRR, 1, 0}, {bench.Local, bench.TCPCRR, 1, 0}, {bench.Local, bench.TCPStream, 1, 0}, {bench.Local, bench.UDP64, 1, 0},
	{bench.Outside, bench.TCPRR, 1, 0}, {bench.Outside, bench.TCPCRR, 1, 0}, {bench.Outside, bench.TCPStream, 1, 0},
	{bench.HostPort, bench.TCPCRR, 1, 0}, {bench.Service, bench.TCPCRR, 1, 0},
}

// Table returns the table in Markdown. Rows that were not measured are left out.
func (r *Report) Table() string {
	p := &page{report: r}
	m := r.Results.Machine
	p.writef("Medians with one connection; after zipline's, the ratios to bridge and to wire, in bold where they are shown to be better. %d CPUs (%s), Linux %s, %s.",
		m.CPUs, inTable(m.Model), inTable(m.Kernel), m.Time.UTC().Format(time.DateOnly))
	if noise := r.Noise.String(); noise != "" {
		p.writef(" %s", inTable(noise))
	}
	p.writef("\n")
	rate := func(l *Line) string {
		if l == nil {
			return "-"
		}
		return optional(l.Medians, Rate, func(v float64) string { return rateText(l.Workload, v) })
	}
	var rows [][]string
	for _, cell := range tableCells {
		if len(r.linesOf(cell)) == 0 {
			continue
		}
		row := []string{cell.String(), rate(r.Line(cell, bench.Wire)), rate(r.Line(cell, bench.Bridge))}
		for _, s := range []bench.Subject{bench.Direct, bench.Tracked} {
			l := r.Line(cell, s)
			text := rate(l)
			for _, to := range references {
				text += ", " + bold(l.ratioTo(to, Rate))
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	p.table([]string{"", "wire", "bridge", "zipline direct", "zipline tracked"}, rows)
	return p.String()
}

// bold returns a ratio of rates, in bold where it is shown to be better.
func bold(ratio *Ratio) string {
	if ratio == nil {
		return "-"
	}
	text := fmt.Sprintf("%.2f", ratio.Median)
	if ratio.Verdict(Rate) == Better {
		return "**" + text + "**"
	}
	return text
}

// The table of a README stands between these two. The first one names the file of
// results, from the README's directory.
var tableBegin = regexp.MustCompile(`(?m)^<!-- zipline-bench table *(.*?) *-->\n`)

const tableEnd = "<!-- end of zipline-bench table -->"

// ErrNoMarkers is returned for a README without the two comments that the table
// stands between.
var ErrNoMarkers = errors.New("no <!-- zipline-bench table --> with " + tableEnd + " behind it, each on a line of its own")

// insertTable returns a README with the table of the results in the file of that name.
func insertTable(readme []byte, table, name string) ([]byte, error) {
	begin := tableBegin.FindIndex(readme)
	if begin == nil {
		return nil, ErrNoMarkers
	}
	end := bytes.Index(readme[begin[1]:], []byte(tableEnd))
	if end < 0 {
		return nil, ErrNoMarkers
	}
	var out bytes.Buffer
	_, _ = out.Write(readme[:begin[0]])
	_, _ = fmt.Fprintf(&out, "<!-- zipline-bench table %s -->\n%s\n", name, table)
	_, _ = out.Write(readme[begin[1]+end:])
	return out.Bytes(), nil
}

// WriteTable puts the table of a file of results into a README; [ErrNoMarkers]
// where that has no place for it.
func WriteTable(readme, results string) error {
	r, err := ReadFile(results)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		return fmt.Errorf("read page: %w", err)
	}
	name, err := nameFrom(readme, results)
	if err != nil {
		return err
	}
	out, err := insertTable(text, New(r).Table(), name)
	if err != nil {
		return fmt.Errorf("write table to %s: %w", readme, err)
	}
	if err := os.WriteFile(readme, out, 0o644); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// nameFrom returns the name of a file from the directory of another one.
func nameFrom(readme, results string) (string, error) {
	from, err := filepath.Abs(filepath.Dir(readme))
	if err != nil {
		return "", fmt.Errorf("find page: %w", err)
	}
	to, err := filepath.Abs(results)
	if err != nil {
		return "", fmt.Errorf("find results: %w", err)
	}
	name, err := filepath.Rel(from, to)
	if err != nil {
		return "", fmt.Errorf("name results: %w", err)
	}
	if strings.Contains(name, "--") { // would end the comment
		return "", fmt.Errorf("name results: %q has \"--\" in it", name)
	}
	return filepath.ToSlash(name), nil
}
