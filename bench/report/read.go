// SPDX-License-Identifier: Apache-2.0

// Reading a file of results, which may be anybody's.

package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/zipline-cni/zipline/bench"
)

// maxText is the longest name in bytes: it has to fit in a table.
const maxText = 100

// ReadFile reads a file of results; see [Read].
func ReadFile(name string) (*bench.Results, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	results, err := Read(file)
	if err != nil {
		return nil, fmt.Errorf("read results %s: %w", name, err)
	}
	return results, nil
}

// Read reads results of [bench.ResultsVersion]. It is strict: it refuses what it
// does not know and samples that can't be, because a figure that is left out without
// a word is a wrong one.
func Read(r io.Reader) (*bench.Results, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("parse json: %w", err)
	}
	if head.Version != bench.ResultsVersion {
		return nil, fmt.Errorf("version %d, where this program reads %d", head.Version, bench.ResultsVersion)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	results := new(bench.Results)
	if err := decoder.Decode(results); err != nil {
		return nil, fmt.Errorf("parse json: %w", err)
	}
	if err := validate(results); err != nil {
		return nil, err
	}
	return results, nil
}

// plausible says whether a number is 0 or one whose ratios and logarithms are
// numbers, too.
func plausible(values ...float64) bool {
	return !slices.ContainsFunc(values, func(v float64) bool { return v != 0 && !(v >= 1e-12 && v <= 1e18) })
}

func validate(r *bench.Results) error {
	if m := r.Machine; m.Steal < 0 || m.Steal > 1 || !plausible(m.LoadBefore, m.LoadAfter) {
		return errors.New("load or stolen share of the machine can't be")
	}
	cases := map[bench.Subject]bool{}
	for i, c := range r.Cases {
		if err := validName(string(c.Name)); err != nil {
			return fmt.Errorf("name of case %d: %w", i, err)
		}
		if cases[c.Name] {
			return fmt.Errorf("case %q is there twice", c.Name)
		}
		cases[c.Name] = true
	}
	type key struct {
		place
		round int
	}
	seen := map[key]bool{}
	for i, s := range r.Flows {
		if err := validFlow(s, cases); err != nil {
			return fmt.Errorf("flow %d: %w", i, err)
		}
		k := key{place{cellOf(s), s.Subject}, s.Round}
		if seen[k] {
			return fmt.Errorf("flow %d: %s of %s is there twice in round %d", i, k.cell, s.Subject, s.Round)
		}
		seen[k] = true
	}
	for i, s := range r.Attach {
		if err := validAttach(s); err != nil {
			return fmt.Errorf("attach %d: %w", i, err)
		}
	}
	for i, c := range r.Crosschecks {
		for _, name := range []string{c.What, c.Tool, c.Unit} {
			if err := validName(name); err != nil && (name != "" || c.Note == "") {
				return fmt.Errorf("crosscheck %d: %w", i, err)
			}
		}
		if !plausible(c.Ours...) || !plausible(c.Theirs...) {
			return fmt.Errorf("crosscheck %d: a figure can't be", i)
		}
	}
	return nil
}

func validFlow(s bench.FlowSample, cases map[bench.Subject]bool) error {
	if !cases[s.Subject] {
		return fmt.Errorf("subject %q is none of the cases", s.Subject)
	}
	for _, name := range []string{string(s.Path), string(s.Workload)} {
		if err := validName(name); err != nil {
			return err
		}
	}
	if s.Connections < 0 || s.Endpoints < 0 || s.Round < 0 {
		return errors.New("a count is negative")
	}
	if !plausible(s.Seconds, s.Busy, s.Threads, s.User) {
		return errors.New("a time can't be")
	}
	if s.Seconds == 0 && s.Units > 0 {
		return errors.New("units in no time")
	}
	if s.Carried < 0 || s.Carried > 1 {
		return fmt.Errorf("share carried by ebpf is %v", s.Carried)
	}
	if l := s.Latency; l != nil && (!plausible(l.P50, l.P99, l.P999) || l.P99 < l.P50 || l.P999 < l.P99) {
		return errors.New("quantiles of latency do not ascend, or can't be")
	}
	return nil
}

func validAttach(s bench.Sample) error {
	for _, name := range []string{string(s.Subject), string(s.Phase), s.Verb} {
		if err := validName(name); err != nil {
			return err
		}
	}
	if !plausible(s.Seconds, s.CPU) || s.Endpoints < 0 {
		return errors.New("a time or count can't be")
	}
	return nil
}

// validName accepts one short line of text.
func validName(name string) error {
	if strings.TrimSpace(name) == "" || len(name) > maxText {
		return fmt.Errorf("%q is no name of 1 to %d bytes", name, maxText)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%q is not printable", name)
	}
	return nil
}
