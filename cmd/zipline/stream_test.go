// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// talk says who of a stream's two ends sends.
type talk int

const (
	bothTalk    talk = iota // each sends, whatever the other does
	clientTalks             // the server reads only
	answerOnce              // the server answers the client's first datagram, then reads only
)

// streamSpec is what a test says about a stream.
type streamSpec struct {
	network  string // "tcp" or "udp"
	from, to *testrig.Namespace
	dial     netip.AddrPort
	listen   netip.AddrPort
	talk     talk
	pace     time.Duration // between two writes; 0 is streamPace, less than 0 none
	size     int           // of a write; 0 is streamSize
	port     uint16        // of the server; 0 is [nextPort]
}

const (
	streamPace = 20 * time.Millisecond
	streamSize = 1000
)

// stream is traffic that goes on until it is stopped or its test ends.
type stream struct {
	streamSpec
	name        string
	there, back progress // what arrived at the server, at the client
	sent        atomic.Int64
	silent      atomic.Bool // both ends say nothing, and close nothing

	mu       sync.Mutex
	err      error // of a connection that nobody closed
	stopped  bool
	sockets  []interface{ Close() error }
	finished sync.WaitGroup
}

// progress is what one end has received.
type progress struct {
	bytes atomic.Int64
	last  atomic.Int64 // when, in nanoseconds since the epoch
}

func (p *progress) add(n int) {
	p.bytes.Add(int64(n))
	p.last.Store(time.Now().UnixNano())
}

// lastAt returns when the end received something last.
func (p *progress) lastAt() time.Time { return time.Unix(0, p.last.Load()) }

// moves says whether the end received something since a time.
func (p *progress) moves(since time.Time) bool { return p.lastAt().After(since) }

// start starts a stream. Its client is connected when this returns.
func start(t *testing.T, name string, spec streamSpec) *stream {
	t.Helper()
	if spec.pace == 0 {
		spec.pace = streamPace
	}
	if spec.size == 0 {
		spec.size = streamSize
	}
	s := &stream{streamSpec: spec, name: name}
	t.Cleanup(s.stop)
	serve := s.serveTCP
	if spec.network == "udp" {
		serve = s.serveUDP
	}
	if err := serve(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	conn, err := spec.from.Dial(spec.network, spec.dial, testrig.Socket{})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	_ = conn.SetDeadline(time.Time{})
	s.keep(conn)
	s.goes(func() { s.send(conn.Write, &s.sent) })
	s.goes(func() { s.receive(conn.Read, &s.back) })
	return s
}

// stop ends both ends, without a word to the other.
func (s *stream) stop() {
	s.mu.Lock()
	s.stopped = true
	for _, socket := range s.sockets {
		_ = socket.Close()
	}
	s.sockets = nil
	s.mu.Unlock()
	s.finished.Wait()
}

// failure returns the error that ended the stream, if one did.
func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *stream) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

func (s *stream) serveTCP() error {
	return s.to.Do(func() error {
		listener, err := net.Listen("tcp", s.listen.String())
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		s.keep(listener)
		s.goes(func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.keep(conn)
			if s.talk == bothTalk {
				s.goes(func() { s.send(conn.Write, new(atomic.Int64)) })
			}
			s.receive(conn.Read, &s.there)
		})
		return nil
	})
}

func (s *stream) serveUDP() error {
	return s.to.Do(func() error {
		conn, err := net.ListenPacket("udp", s.listen.String())
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		s.keep(conn)
		s.goes(func() {
			buf := make([]byte, 1<<16)
			known := false
			s.receive(func([]byte) (int, error) {
				n, peer, err := conn.ReadFrom(buf)
				if err != nil || known {
					return n, err
				}
				known = true
				write := func(b []byte) (int, error) { return conn.WriteTo(b, peer) }
				switch s.talk {
				case bothTalk:
					s.goes(func() { s.send(write, new(atomic.Int64)) })
				case answerOnce:
					_, err = write([]byte("once"))
				case clientTalks:
				}
				return n, err
			}, &s.there)
		})
		return nil
	})
}

func (s *stream) keep(socket interface{ Close() error }) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = socket.Close()
		return
	}
	s.sockets = append(s.sockets, socket)
}

func (s *stream) goes(f func()) {
	s.finished.Add(1)
	go func() {
		defer s.finished.Done()
		f()
	}()
}

func (s *stream) send(write func([]byte) (int, error), sent *atomic.Int64) {
	payload := make([]byte, s.size)
	for {
		for s.silent.Load() && !s.ended() {
			time.Sleep(streamPace)
		}
		n, err := write(payload)
		if s.ends(err) {
			return
		}
		sent.Add(int64(n))
		if s.pace > 0 {
			time.Sleep(s.pace)
		}
	}
}

func (s *stream) receive(read func([]byte) (int, error), p *progress) {
	buf := make([]byte, 1<<16)
	for {
		n, err := read(buf)
		if s.ends(err) {
			return
		}
		if n > 0 {
			p.add(n)
		}
	}
}

// ends says whether an error ends the stream, and keeps the first that the test
// did not cause. UDP outlives errors: they are told of a datagram long gone.
func (s *stream) ends(err error) bool {
	if err == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || errors.Is(err, net.ErrClosed) {
		return true
	}
	if s.network == "udp" && !errors.Is(err, unix.EBADF) {
		s.mu.Unlock()
		time.Sleep(s.pace)
		s.mu.Lock()
		return s.stopped
	}
	if s.err == nil {
		s.err = err
	}
	return true
}
