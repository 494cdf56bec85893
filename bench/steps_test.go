// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"testing"
	"time"
)

func TestStepsTellHowFarTheyAre(t *testing.T) {
	var out bytes.Buffer
	clock := &clock{time.Unix(0, 0)}
	s := session{screen: &screen{w: &out, now: clock.now, began: clock.Time}}
	growing := s.begin("to 300 endpoints", 300)
	growing.pace.now, growing.pace.began = clock.now, clock.Time
	clock.pass(20 * time.Second)
	growing.advance(100)
	clock.pass(40 * time.Second)
	growing.advance(200)
	want := "   0.0 s  to 300 endpoints\n  20.0 s  to 300 endpoints: 100, 40s left\n"
	if got := out.String(); got != want {
		t.Errorf("shown:\n%s\nwant:\n%s", got, want)
	}
}
