// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"testing"
	"time"
)

// show has a screen show steps and what is between them.
func show(tty bool) string {
	var out bytes.Buffer
	clock := &clock{time.Unix(0, 0)}
	s := &screen{w: &out, tty: tty, now: clock.now, began: clock.Time}
	s.step("build")
	for i := range 5 {
		clock.pass(10 * time.Second)
		s.progress("round", time.Duration(40-10*i)*time.Second)
	}
	_, _ = s.Write([]byte("by the way\n"))
	s.clear()
	s.step("end")
	return out.String()
}

func TestStatusIsRewrittenOnATerminal(t *testing.T) {
	const c = clearLine
	want := c + "   0.0 s  build\n" + c + "  10.0 s  round, 40s left" + c + "  20.0 s  round, 30s left" + c + "  30.0 s  round, 20s left" +
		c + "  40.0 s  round, 10s left" + c + "  50.0 s  round" + c + "by the way\n" + c + c + "  50.0 s  end\n"
	if got := show(true); got != want {
		t.Errorf("screen shows %q\nwant %q", got, want)
	}
}

func TestStatusIsALineNowAndThenElsewhere(t *testing.T) {
	want := "   0.0 s  build\n  10.0 s  round, 40s left\n  30.0 s  round, 20s left\n  50.0 s  round\nby the way\n  50.0 s  end\n"
	if got := show(false); got != want {
		t.Errorf("screen shows %q\nwant %q", got, want)
	}
}
