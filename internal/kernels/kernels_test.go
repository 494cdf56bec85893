// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheNewestOfASeriesIsTaken(t *testing.T) {
	releases := []string{
		"5.10.0-30-cloud-amd64", "5.10.0-32-cloud-amd64", "6.1.0-50-cloud-amd64", "6.12.94+deb13-cloud-amd64",
		"6.12.107+deb13-cloud-amd64", "7.2.13+deb14-cloud-amd64", "7.10.1+deb14-cloud-amd64",
	}
	for series, want := range map[string]string{
		"5.10": "5.10.0-32-cloud-amd64", "6.1": "6.1.0-50-cloud-amd64", "6.12": "6.12.107+deb13-cloud-amd64",
		"7": "7.10.1+deb14-cloud-amd64", "7.2": "7.2.13+deb14-cloud-amd64", "6.16": "", "5.1": "",
	} {
		if got := newest(releases, series); got != want {
			t.Errorf("series %s: %q, want %q", series, got, want)
		}
	}
}

// The format is the kernel's; what it reads is checked by every boot.
func TestImageIsAnArchiveOfWholeWords(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "five"), []byte("12345"), 0o755); err != nil {
		t.Fatal(err)
	}
	i := newImage()
	i.link("/bin/sh", "busybox")
	if err := i.tree("/a/b", dir); err != nil {
		t.Fatal(err)
	}
	if err := i.tree("/none", filepath.Join(dir, "missing")); err != nil {
		t.Errorf("a tree that is not there: %v", err)
	}
	file := filepath.Join(t.TempDir(), "archive")
	if err := i.write(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(data)%4 != 0 {
		t.Errorf("the archive has %d bytes", len(data))
	}
	var names []string
	for at := 0; at < len(data); at = bytes.Index(data[at+1:], []byte("070701")) + at + 1 {
		if at%4 != 0 {
			t.Errorf("a header lies at %d", at)
		}
		name, _, _ := bytes.Cut(data[at+110:], []byte{0})
		names = append(names, string(name))
		if string(name) == "TRAILER!!!" {
			break
		}
	}
	want := []string{"a", "a/b", "a/b/five", "bin", "bin/sh", "TRAILER!!!"}
	if !slices.Equal(names, want) {
		t.Errorf("the archive has %q, want %q", names, want)
	}
}

const output = `zipline-guest: fact tier: direct
zipline-guest: begin loader
` + "\x16" + `=== RUN   TestA
` + "\x16" + `=== RUN   TestA/sub
` + "\x16" + `--- PASS: TestA (0.10s)
    ` + "\x16" + `--- PASS: TestA/sub (0.05s)
` + "\x16" + `=== RUN   TestB
    b_test.go:7: kernel without tcx
` + "\x16" + `--- SKIP: TestB (0.00s)
` + "\x16" + `PASS
zipline-guest: end loader 0
zipline-guest: begin bpf
` + "\x16" + `=== RUN   TestC
`

func TestATestThatDoesNotEndFails(t *testing.T) {
	r, err := parseReport(t.Context(), &kernel{series: "6.1"}, []byte(output))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"loader TestA": "PASS", "loader TestA/sub": "PASS", "loader TestB": "SKIP", "bpf TestC": "FAIL",
	} {
		if got := r.result(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if len(r.broken) != 1 {
		t.Errorf("broken: %q", r.broken)
	}
	var table strings.Builder
	if printTables(&table, []*report{r}) {
		t.Error("all is well")
	}
	for _, want := range []string{"tier  ", "direct", "SKIP 6.1 loader TestB: b_test.go:7: kernel without tcx"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, &table)
		}
	}
}

func TestAMachineThatComesToItsEndIsWell(t *testing.T) {
	whole, _, _ := strings.Cut(output, "zipline-guest: begin bpf")
	r, err := parseReport(t.Context(), &kernel{series: "6.1"}, []byte(whole+"zipline-guest: done\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !printTables(&strings.Builder{}, []*report{r}) {
		t.Errorf("not well: %q", r.broken)
	}
	r, err = parseReport(t.Context(), &kernel{series: "6.1"}, []byte(strings.Replace(whole, "loader 0", "loader 2", 1)+"zipline-guest: done\n"))
	if err != nil {
		t.Fatal(err)
	}
	if printTables(&strings.Builder{}, []*report{r}) {
		t.Error("a binary that ended with 2 is well")
	}
}
