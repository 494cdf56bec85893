// SPDX-License-Identifier: Apache-2.0

// The files of a report.

package report

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zipline-cni/zipline/bench"
)

// The files that a report and its results are in.
const (
	PageFile    = "report.md"
	ResultsFile = "results.json"
)

// figures returns all that there are data for.
func (r *Report) figures() []figure {
	var all []figure
	add := func(f figure, ok bool) {
		if ok {
			all = append(all, f)
		}
	}
	for _, path := range r.paths() {
		for _, to := range references {
			add(r.ratioFigure(path, to))
		}
		add(r.rateFigure(path))
		add(r.latencyFigure(path))
	}
	add(r.growthFigure())
	add(r.attachFigure())
	return all
}

// Write writes the page and its pictures, as SVG and PNG, to a directory, which it
// makes where there is none: [PageFile] and the files that it shows.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	figures := r.figures()
	for _, f := range figures {
		if err := errors.Join(writeFile(filepath.Join(dir, f.name+".svg"), f.writeSVG),
			writeFile(filepath.Join(dir, f.name+".png"), f.writePNG)); err != nil {
			return err
		}
	}
	return writeFile(filepath.Join(dir, PageFile), func(w io.Writer) error { return r.writeMarkdown(w, figures) })
}

// WriteAll writes results and their report to a directory; see [Report.Write]. The
// results go first, so that no failure of a picture loses a run.
func WriteAll(dir string, results *bench.Results) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := writeFile(filepath.Join(dir, ResultsFile), results.WriteJSON); err != nil {
		return err
	}
	return New(results).Write(dir)
}

// writeFile writes a file by write.
func writeFile(name string, write func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	return errors.Join(write(file), file.Close())
}
