// SPDX-License-Identifier: Apache-2.0

package load

import (
	"math"
	"testing"
	"time"
)

func TestIdleTimeIsOfAllCPUs(t *testing.T) {
	const text = "cpu  99 99 99 99 99 99 99 99 0 0\n" +
		"cpu0 1 2 3 400 50 6 7 25 0 0\n" +
		"cpu1 1 2 3 600 0 6 7 0 0 0\n" +
		"intr 12 0 0 0 0 0 0 0 0 0\n"
	got, err := parseIdle(text)
	if err != nil || got != (idleTime{seconds: 10.75, cpus: 2}) {
		t.Errorf("idle %+v, %v", got, err)
	}
	for _, wrong := range []string{"", "cpu0 1 2 3 x 5 6 7 8 9 10\n"} {
		if got, err := parseIdle(wrong); err == nil {
			t.Errorf("idle time of %q is %+v", wrong, got)
		}
	}
}

func TestBusyIsWhatIsNotIdle(t *testing.T) {
	before, after := idleTime{100, 2}, idleTime{100.6, 2}
	if got := busySeconds(0.5, before, after); math.Abs(got-0.4) > 1e-9 {
		t.Errorf("busy %v; want 0.4", got)
	}
	// Clock ticks are coarser than a round may be short.
	if got := busySeconds(0.25, before, after); got != 0 {
		t.Errorf("busy %v; want 0", got)
	}
}

func TestBusyLoopIsSeen(t *testing.T) {
	watch, err := newStopwatch()
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(300 * time.Millisecond); time.Now().Before(until); {
	}
	elapsed, busy, err := watch.stop()
	if err != nil || elapsed < 0.3 || busy < 0.2 {
		t.Errorf("%v s of spinning: %v s busy, %v", elapsed, busy, err)
	}
}
