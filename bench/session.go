// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// session is what every run has.
type session struct {
	tb     testing.TB
	began  time.Time
	random *rand.Rand
}

func newSession(tb testing.TB, seed uint64) session {
	return session{tb, time.Now(), rand.New(rand.NewPCG(seed, 1))}
}

func (s *session) progress(what string) {
	s.tb.Logf("%6.1f s  %s", time.Since(s.began).Seconds(), what)
}

// shuffled returns the values in random order.
func shuffled[T any](random *rand.Rand, values ...T) []T {
	order := slices.Clone(values)
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}
