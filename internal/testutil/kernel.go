// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"fmt"
	"os"
	"testing"
)

// RequireKernel skips the test unless err is nil: what a probe of the kernel
// said about a feature. With CI set in the environment it fails instead, but on
// the kernels of internal/kernels, some of which lack what newer ones have.
func RequireKernel(tb testing.TB, feature string, err error) {
	tb.Helper()
	if err == nil {
		return
	}
	if os.Getenv("ZIPLINE_TEST_KERNEL") != "" {
		tb.Skipf("kernel without %s: %v", feature, err)
	}
	skipOrFail(tb, fmt.Errorf("kernel with %s: %w", feature, err))
}
