// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bench"
)

func TestFlagsOfARun(t *testing.T) {
	full, err := bench.DefaultRunOptions()
	if err != nil {
		t.Fatal(err)
	}
	quick, err := bench.QuickRunOptions()
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "own.json")
	if err := os.WriteFile(own, []byte(`{"name":"own","title":"my own","kind":"wire"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want func(o bench.RunOptions) bool
	}{
		{"a full run measures all", nil, func(o bench.RunOptions) bool {
			return len(o.Cases) == len(full.Cases) && len(o.Subjects) == 0 && o.Budget == full.Budget && o.Attach != nil && len(o.Growth.Sizes) == 2
		}},
		{"a quick run measures less", []string{"-quick"}, func(o bench.RunOptions) bool { return o.Budget == quick.Budget && len(o.Subjects) > 0 }},
		{"quick may come last", []string{"-budget", "7s", "--quick=true"}, func(o bench.RunOptions) bool {
			return o.Budget == 7*time.Second && o.Duration == quick.Duration
		}},
		{"subjects have spaces in their names", []string{"-subjects", "wire again, bridge"}, func(o bench.RunOptions) bool {
			return slices.Equal(o.Subjects, []bench.Subject{"wire again", "bridge"})
		}},
		{"one's own case is among all", []string{"-cases", own}, func(o bench.RunOptions) bool {
			return len(o.Cases) == len(full.Cases)+1 && len(o.Subjects) == 0
		}},
		{"one's own case is among the chosen", []string{"-quick", "-cases", own}, func(o bench.RunOptions) bool {
			return slices.Contains(o.Subjects, "own")
		}},
		{"parts can be left out", []string{"-no-growth", "-no-attach"}, func(o bench.RunOptions) bool {
			return o.Attach == nil && o.Growth.Sizes == nil
		}},
		{"lists of numbers", []string{"-connections", "1,8", "-growth", "10,20"}, func(o bench.RunOptions) bool {
			return slices.Equal(o.Connections, []int{1, 8}) && slices.Equal(o.Growth.Sizes, []int{10, 20})
		}},
		{"no progress", []string{"-quiet"}, func(o bench.RunOptions) bool { return o.Progress == nil }},
	} {
		opts, out, err := runOptions(c.args, io.Discard)
		if err != nil || out == "" || !c.want(opts) {
			t.Errorf("%s: %q gives %+v, %q, %v", c.name, c.args, opts.FlowOptions, out, err)
		}
	}
	if _, _, err := runOptions([]string{"-cases", own + ", " + own}, io.Discard); !errors.Is(err, errUsage) {
		t.Errorf("the same case twice: %v", err)
	}
}
