// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"os"
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

// TestMemoryIsSmall leaves out the first ADD, which loads the programs.
func TestMemoryIsSmall(t *testing.T) {
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
