// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Stream sends datagrams as time goes by, counts them and those that arrive, and
// answers each, so that conntrack has an established flow.
type Stream struct {
	sent, received atomic.Int64
	done, ended    chan struct{}
}

// NewStream begins to send by out what in receives, and closes both when the test
// ends. It needs root.
func NewStream(tb testing.TB, in *net.UDPConn, out net.Conn) *Stream {
	tb.Helper()
	tb.Cleanup(func() { _ = errors.Join(in.Close(), out.Close()) })
	if err := enlarge(in); err != nil {
		tb.Fatal(err)
	}
	s := &Stream{done: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := in.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			s.received.Add(1)
			_, _ = in.WriteToUDPAddrPort([]byte("answer"), from) // nobody counts them
		}
	}()
	go func() {
		defer close(s.ended)
		for {
			select {
			case <-s.done:
				return
			case <-time.After(200 * time.Microsecond):
				if _, err := out.Write([]byte("datagram")); err == nil {
					s.sent.Add(1)
				}
			}
		}
	}()
	return s
}

// enlarge gives a socket room for all that a test sends: what is lost must be
// lost on the way, not by a receiver that the machine does not let run.
func enlarge(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	})
	return errors.Join(err, failed)
}

// WantAll stops the stream, fails the test unless all of at least 100 datagrams
// arrived, and returns how many were sent.
func (s *Stream) WantAll(tb testing.TB, what string) (sent int64) {
	tb.Helper()
	close(s.done)
	<-s.ended
	sent = s.sent.Load()
	for deadline := time.Now().Add(5 * time.Second); s.received.Load() < sent && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if received := s.received.Load(); sent < 100 || received != sent {
		tb.Errorf("%s: %d of %d datagrams arrived, want all of at least 100", what, received, sent)
	}
	return sent
}
