// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/zipline-cni/zipline/internal/kernels/plan"
)

// report is what a kernel's machine said.
type report struct {
	*kernel
	elapsed time.Duration
	facts   []fact
	results []result
	// broken lists what kept the tests from being run.
	broken  []string
	console string // end of the kernel's messages, where broken
}

type fact struct{ name, value string }

// result is one test or subtest.
type result struct {
	pkg, test string
	action    string // pass, fail or skip
	seconds   float64
	output    string
}

// parseReport reads the machine's output.
func parseReport(ctx context.Context, k *kernel, text []byte) (*report, error) {
	r := &report{kernel: k}
	done, pkg := false, ""
	var tests bytes.Buffer
	for line := range bytes.Lines(text) {
		marked, ok := strings.CutPrefix(strings.TrimSpace(string(line)), plan.Mark+" ")
		if !ok {
			tests.Write(line)
			continue
		}
		word, rest, _ := strings.Cut(marked, " ")
		switch word {
		case plan.Fact:
			name, value, _ := strings.Cut(rest, ": ")
			r.facts = append(r.facts, fact{name, value})
		case plan.Begin:
			pkg = rest
			tests.Reset()
		case plan.End:
			if err := r.addResults(ctx, pkg, tests.Bytes()); err != nil {
				return nil, err
			}
			if !strings.HasSuffix(rest, " 0") && !r.failed(pkg) {
				r.broken = append(r.broken, "tests of "+rest+": "+string(tests.Bytes()[max(0, tests.Len()-2000):]))
			}
			pkg = ""
		case plan.Done:
			done = true
		default:
			r.broken = append(r.broken, rest)
		}
	}
	if pkg != "" {
		if err := r.addResults(ctx, pkg, tests.Bytes()); err != nil {
			return nil, err
		}
	}
	if !done {
		r.broken = append(r.broken, "the machine did not come to its end")
	}
	return r, nil
}

// addResults has the go command read the output of a package's tests.
func (r *report) addResults(ctx context.Context, pkg string, output []byte) error {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", pkg)
	cmd.Stdin = bytes.NewReader(output)
	events, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("read test output: %w", err)
	}
	printed := map[string]string{}
	decoder := json.NewDecoder(bytes.NewReader(events))
	for {
		var e struct {
			Action, Test, Output string
			Elapsed              float64
		}
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("read test output: %w", err)
		}
		switch e.Action {
		case "output":
			printed[e.Test] += e.Output
		case "run":
			printed[e.Test] += ""
		case "pass", "fail", "skip":
			if e.Test != "" {
				r.results = append(r.results, result{pkg, e.Test, e.Action, e.Elapsed, printed[e.Test]})
			}
			delete(printed, e.Test)
		}
	}
	for test, output := range printed {
		if test != "" {
			r.results = append(r.results, result{pkg, test, "fail", 0, output + "(it did not end)\n"})
		}
	}
	return nil
}

// failed says whether a test of a package failed, "" for any.
func (r *report) failed(pkg string) bool {
	for _, t := range r.results {
		if t.action == "fail" && (pkg == "" || t.pkg == pkg) {
			return true
		}
	}
	return false
}
