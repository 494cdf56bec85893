// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// Timeouts of a node whose flows would expire during a test, if their packets did
// not reach conntrack in time, and by how much eBPF may prolong one.
const (
	shortTimeout  = 5 // seconds
	prolongation  = 2
	lifetimeWatch = 5 * shortTimeout * time.Second
)

func (top *topology) shortenTimeouts(t *testing.T) {
	t.Helper()
	for _, key := range []string{"tcp_timeout_established", "udp_timeout", "udp_timeout_stream"} {
		top.Node.SetSysctl(t, "netfilter/nf_conntrack_"+key, fmt.Sprint(shortTimeout))
	}
}

// TestFlowsUnderTrafficNeverExpire has flows of many times their timeout: of each
// protocol, family, way across the node and manner of talking. Each keeps its
// entry while it sends and loses it soon after.
func TestFlowsUnderTrafficNeverExpire(t *testing.T) {
	t.Parallel()
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			pods := top.attachAll(network{}, 2)
			top.shortenTimeouts(t)
			destroyed := top.watchDestroyed(t)
			tracked := top.lifetimeStreams(t, pods)
			for started := time.Now(); time.Since(started) < lifetimeWatch; time.Sleep(500 * time.Millisecond) {
				entries := top.entries(t)
				for _, s := range tracked {
					wantEntry(t, s, entries[s.port])
				}
				if t.Failed() {
					return
				}
			}
			for _, s := range tracked {
				if n := destroyed.count(t, s.port); n > 0 || s.failure() != nil {
					t.Errorf("%s: conntrack forgot it %d times, error %v", s.name, n, s.failure())
				}
			}
			awaitEach(t, tracked, "goes on", testrig.Timeout, func(s *stream) bool { return s.there.moves(time.Now().Add(-time.Second)) })
			top.wantExpiry(t, tracked)
		})
	}
}

// lifetimeStreams starts a stream of each kind that conntrack sees in this tier
// and waits until every end has heard of the other.
func (top *topology) lifetimeStreams(t *testing.T, pods []*pod) []*stream {
	t.Helper()
	top.publishAll(t, pods[0])
	all := top.streams(t, top.stackWays(), pods,
		streamSpec{network: "tcp", talk: bothTalk},
		streamSpec{network: "tcp", talk: clientTalks},
		streamSpec{network: "udp", talk: bothTalk},
		streamSpec{network: "udp", talk: answerOnce},
		// Slow enough for each second packet to check in, and not too slow to lose one.
		streamSpec{network: "udp", talk: bothTalk, pace: 1200 * time.Millisecond, size: 10})
	awaitEach(t, all, "begins", begin, func(s *stream) bool {
		return s.there.bytes.Load() > 0 && (s.back.bytes.Load() > 0 || s.talk == clientTalks)
	})
	return all
}

// wantEntry checks that a stream has one entry, whose time is neither up nor
// without end.
func wantEntry(t *testing.T, s *stream, entries []entry) {
	t.Helper()
	switch {
	case len(entries) != 1:
		t.Errorf("%s: %d entries under traffic: %v", s.name, len(entries), entries)
	case entries[0].remaining > shortTimeout+prolongation:
		t.Errorf("%s: %d s remain: %s", s.name, entries[0].remaining, entries[0].text)
	case s.network == "tcp" && entries[0].state != "ESTABLISHED":
		t.Errorf("%s: state %s", s.name, entries[0].state)
	}
}

// wantExpiry stops the packets of streams, so that no end of a connection is
// seen, and waits until conntrack has forgotten all of them.
func (top *topology) wantExpiry(t *testing.T, streams []*stream) {
	t.Helper()
	top.Node.MustRunInput(t, `table inet silence {
	chain pre { type filter hook prerouting priority -500; policy drop; }
}`, "nft", "-f", "-")
	for _, s := range streams {
		s.stop()
	}
	awaitEach(t, streams, "expires", 3*(shortTimeout+prolongation)*time.Second, func(s *stream) bool {
		time.Sleep(50 * time.Millisecond)
		return len(top.entries(t)[s.port]) == 0
	})
}

// TestIdleFlowsKeepTheirTimeout lets streams that eBPF carries fall silent, at any
// moment of their check-ins. A TCP connection then has all of its time left, as in
// tier kernel, and not what conntrack gives one whose data nobody acknowledges: it
// did not see the acknowledgement.
func TestIdleFlowsKeepTheirTimeout(t *testing.T) {
	t.Parallel()
	const established, unacknowledged = 1000, 300 // seconds
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			pods := top.attachAll(network{}, 2)
			top.Node.SetSysctl(t, "netfilter/nf_conntrack_tcp_timeout_established", fmt.Sprint(established))
			top.Node.SetSysctl(t, "netfilter/nf_conntrack_tcp_timeout_unacknowledged", fmt.Sprint(unacknowledged))
			top.publishAll(t, pods[0])
			var streams []*stream
			for _, f := range families {
				for _, w := range top.stackWays() {
					for _, spec := range []streamSpec{
						{network: "tcp", talk: bothTalk}, {network: "tcp", talk: clientTalks},
						{network: "tcp", talk: clientTalks, size: 64 << 10, pace: 2 * time.Millisecond},
					} {
						streams = append(streams, top.stream(t, w, f, pods, spec))
						time.Sleep(100 * time.Millisecond)
					}
				}
			}
			top.account(t, streams...)
			top.wantCarried(t, streams...)
			for _, s := range streams {
				s.silent.Store(true)
				time.Sleep(100 * time.Millisecond)
			}
			silent := time.Now()
			awaitEach(t, streams, "falls silent", testrig.Timeout, func(s *stream) bool {
				return !s.there.moves(time.Now().Add(-500*time.Millisecond)) && !s.back.moves(time.Now().Add(-500*time.Millisecond))
			})
			entries := top.entries(t)
			least := established - int(time.Since(silent).Seconds()) - 10
			for _, s := range streams {
				if e := entries[s.port]; len(e) != 1 || e[0].remaining < least {
					t.Errorf("%s: entries %v; want one with at least %d s left", s.name, e, least)
				}
			}
			for _, s := range streams {
				s.silent.Store(false)
			}
			awaitEach(t, streams, "speaks again", testrig.Timeout, func(s *stream) bool { return s.there.moves(time.Now().Add(-100 * time.Millisecond)) })
		})
	}
}
