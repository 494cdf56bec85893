// SPDX-License-Identifier: Apache-2.0

// What a run says while it runs.

package bench

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// statusEvery is how often the status becomes a line where lines can't be rewritten.
const statusEvery = 15 * time.Second

// screen shows steps, which stay, and below them a status with the time left. On a
// terminal the status is rewritten in its place.
type screen struct {
	w     io.Writer
	tty   bool
	now   func() time.Time
	began time.Time

	mu     sync.Mutex
	status time.Time // of the last one that became a line
}

// newScreen returns a screen on a writer; nil is for nobody to see.
func newScreen(w io.Writer) *screen {
	if w == nil {
		w = io.Discard
	}
	file, ok := w.(*os.File)
	return &screen{w: w, tty: ok && term.IsTerminal(int(file.Fd())), now: time.Now, began: time.Now()}
}

// clearLine takes the cursor to the line's beginning and empties the line.
const clearLine = "\r\x1b[K"

// step shows what begins now.
func (s *screen) step(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.print(what, "\n")
}

// progress shows how far a step is, and the time that it takes still, if that is known.
func (s *screen) progress(what string, left time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if left > 0 {
		what = fmt.Sprintf("%s, %s left", what, left.Round(time.Second))
	}
	switch now := s.now(); {
	case s.tty:
		s.print(what, "")
	case now.Sub(s.status) >= statusEvery:
		s.status = now
		s.print(what, "\n")
	}
}

// clear takes the status away, as nothing is in progress.
func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty {
		_, _ = io.WriteString(s.w, clearLine)
	}
}

// Write shows the lines that others write.
func (s *screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty {
		_, _ = io.WriteString(s.w, clearLine)
	}
	return s.w.Write(lines)
}

func (s *screen) print(what, end string) {
	begin := ""
	if s.tty {
		begin = clearLine
	}
	// Nobody to tell if it can't be shown.
	_, _ = fmt.Fprintf(s.w, "%s%6.1f s  %s%s", begin, s.now().Sub(s.began).Seconds(), what, end)
}
