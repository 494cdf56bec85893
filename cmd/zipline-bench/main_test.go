// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/bench"
)

func TestWrongUsageIsTold(t *testing.T) {
	for _, args := range [][]string{
		nil, {"detach"}, {"attach", "-no-such-flag"}, {"tax", "-subjects", "wire"},
		{"run", "-workloads", "TCP_XYZ"}, {"run", "-paths", "same node,same node"}, {"run", "-connections", "0"}, {"run", "more"}, {"run", "-quick=1"},
		{"observe", "-subjects", "nobody,nobody"}, {"observe", "-subjects", ""},
	} {
		var stderr bytes.Buffer
		if err := run(args, io.Discard, &stderr); !errors.Is(err, errUsage) {
			t.Errorf("run %q: %v; want a usage error", args, err)
		}
		if stderr.Len() == 0 {
			t.Errorf("run %q says nothing on stderr", args)
		}
	}
}

func TestHelpListsTheFlags(t *testing.T) {
	reports := []string{"-check", "-json", "-csv"}
	for command, flags := range map[string][]string{
		"attach": append(reports, "-sizes"), "observe": append(reports, "-subjects"), "tax": append(reports, "-workloads", "-cpus", "-duration"),
		"run": {"-quick", "-out", "-cases", "-subjects", "-budget", "-connections"},
	} {
		var stderr bytes.Buffer
		if err := run([]string{command, "-help"}, io.Discard, &stderr); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("help of %s: %v", command, err)
		}
		for _, want := range append(flags, "-rounds", "-zipline", "-quiet") {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("help of %s has no %s", command, want)
			}
		}
	}
}

func TestSubsetKeepsTheOrderThatIsAskedFor(t *testing.T) {
	c := newCommand("test", io.Discard, io.Discard)
	chosen := []bench.Workload{bench.TCPRR}
	subset(c.flags, "workloads", &chosen, bench.TCPRR, bench.UDPRR, bench.TCPStream)
	if err := c.parse([]string{"-workloads", "TCP_STREAM, TCP_RR"}, new(io.Writer)); err != nil {
		t.Fatal(err)
	}
	if join(chosen) != "TCP_STREAM,TCP_RR" {
		t.Errorf("chosen %v", chosen)
	}
}

func TestReportFileIsWrittenOnlyWhenNamed(t *testing.T) {
	if err := writeFile("", nil); err != nil {
		t.Errorf("no file: %v", err)
	}
	name := filepath.Join(t.TempDir(), "report")
	write := func(w io.Writer) error {
		_, err := io.WriteString(w, "text")
		return err
	}
	if err := writeFile(name, write); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "text" {
		t.Errorf("file holds %q, %v", text, err)
	}
}

func TestSizesAscend(t *testing.T) {
	for text, want := range map[string]string{
		"1,10, 200": "[1 10 200]", "5": "[5]", "": "[]", "10,10": "[]", "0": "[]", "3,2": "[]", "x": "[]",
	} {
		got, err := parseSizes(text)
		if fmt.Sprint(got) != want || (err != nil) != (want == "[]") {
			t.Errorf("sizes %q: %v, %v; want %s", text, got, err, want)
		}
	}
}
