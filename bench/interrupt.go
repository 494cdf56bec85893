// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"time"
)

// interrupted says whether ctx is over, or is so in a moment: a terminal interrupts
// the processes that a run has started together with the run, and whoever of them
// dies of it must not be taken for one that has failed.
func interrupted(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}
