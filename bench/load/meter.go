// SPDX-License-Identifier: Apache-2.0

package load

import "time"

// meter measures what an end does. It reads the clock once per transaction.
type meter struct {
	start time.Time
	// now and from are since the start: the last reading of the clock, and the
	// one that the measurement began with.
	now, from time.Duration
	times     histogram
	// sent and lost datagrams.
	sent, lost uint64
}

func newMeter() *meter { return &meter{start: time.Now()} }

// read reads the clock.
func (m *meter) read() time.Duration {
	m.now = time.Since(m.start)
	return m.now
}

// took notes a transaction that ends now. One that has begun before the
// measurement has waited for it too, and does not count.
func (m *meter) took(since time.Duration) {
	if since >= m.from {
		m.times.add(m.now - since)
	}
}

// measure repeats a step for the end's times and adds up what it returns. A step
// reads the clock at least once.
func (m *meter) measure(e End, step func() (uint64, error)) (found Measurement, err error) {
	if found.Total, err = m.repeat(e.Warmup, step); err != nil {
		return found, err
	}
	watch, err := newStopwatch()
	if err != nil {
		return found, err
	}
	m.from, m.sent, m.lost, m.times = m.read(), 0, 0, histogram{}
	if found.Units, err = m.repeat(e.Duration, step); err != nil {
		return found, err
	}
	found.Seconds, found.Busy, err = watch.stop()
	found.Total += found.Units
	found.Sent, found.Lost = m.sent, m.lost
	found.Latency = m.times.latency()
	return found, err
}

func (m *meter) repeat(d time.Duration, step func() (uint64, error)) (units uint64, err error) {
	for until := m.read() + d; m.now < until; {
		n, err := step()
		if err != nil {
			return units, err
		}
		units += n
	}
	return units, nil
}
