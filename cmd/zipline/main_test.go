// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets more tests run at a time than the machine has processors: they
// mostly wait, for answers that should not come and for the kernel.
func TestMain(m *testing.M) {
	flag.Parse()
	explicit := false
	flag.Visit(func(f *flag.Flag) { explicit = explicit || f.Name == "test.parallel" })
	if !explicit {
		if err := flag.Set("test.parallel", "6"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
