// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// The limits of the plugin's executable and of its memory per ADD.
const (
	maxBinary = 12_000_000
	maxMemory = 40_000_000
)

func TestExecutableIsSmall(t *testing.T) {
	info, err := os.Stat(reference.BuildZipline(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("executable: %d bytes", info.Size())
	if info.Size() > maxBinary {
		t.Errorf("executable has %d bytes; at most %d", info.Size(), maxBinary)
	}
}

// alone marks a test process that runs one test.
const alone = "ZIPLINE_TEST_ALONE"

// TestMemoryIsSmall leaves out the first ADD, which loads the programs. It runs
// in a process of its own: what the kernel reports of a process includes what its
// parent had when it was forked (setmax_mm_hiwater_rss in exec_mmap).
func TestMemoryIsSmall(t *testing.T) {
	if os.Getenv(alone) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), alone+"=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Errorf("run the test alone: %v", err)
		}
		return
	}
	top := newTopology(t, directTier, testrig.Options{})
	top.attach(network{})
	for range 5 {
		reply := top.container().Invoke(t, "ADD", network{}.config(top.v))
		if err := reply.Err(); err != nil {
			t.Fatal(err)
		}
		t.Logf("ADD: %d bytes, %v", reply.MaxRSS, reply.Elapsed)
		if reply.MaxRSS > maxMemory {
			t.Errorf("ADD took %d bytes; at most %d", reply.MaxRSS, maxMemory)
		}
	}
}
