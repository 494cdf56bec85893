// SPDX-License-Identifier: Apache-2.0

// What a run says of a part that consists of many equal steps.

package bench

import "fmt"

// steps shows how far such a part is.
type steps struct {
	screen *screen
	what   string
	pace   pace
}

// begin shows what begins now, and that it takes so many steps.
func (s *session) begin(what string, total int) *steps {
	s.progress(what)
	p := exactly(total)
	p.start(1)
	return &steps{s.screen, what, p}
}

// advance shows that more steps are done.
func (s *steps) advance(n int) {
	s.pace.done += n
	if s.pace.done < s.pace.least {
		s.screen.progress(fmt.Sprintf("%s: %d", s.what, s.pace.done), s.pace.left())
	} else {
		s.screen.clear()
	}
}
