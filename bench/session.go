// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"io"
	"math/rand/v2"
	"slices"
	"testing"
)

// session is what every run has.
type session struct {
	tb     testing.TB
	random *rand.Rand
	screen *screen
}

func newSession(tb testing.TB, seed uint64, progress io.Writer) session {
	return session{tb, rand.New(rand.NewPCG(seed, 1)), newScreen(progress)}
}

func (s *session) progress(what string) { s.screen.step(what) }

// shuffled returns the values in random order.
func shuffled[T any](random *rand.Rand, values ...T) []T {
	order := slices.Clone(values)
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}
