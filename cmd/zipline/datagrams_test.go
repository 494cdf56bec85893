// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// datagrams is a client that sends datagrams from one port until its test ends.
type datagrams struct {
	conn     net.Conn
	answered atomic.Int64
	last     atomic.Int64 // when, in nanoseconds since the epoch
}

// talkTo opens sockets to a service until one talks to a given backend.
func talkTo(t *testing.T, from *testrig.Namespace, service netip.AddrPort, backend *testrig.Server) *datagrams {
	t.Helper()
	for range 50 {
		conn, err := from.Dial("udp", service, testrig.Socket{})
		if err != nil {
			t.Fatal(err)
		}
		before := len(backend.Peers())
		d := &datagrams{conn: conn}
		_ = conn.SetDeadline(time.Now().Add(testrig.Timeout))
		_, _ = conn.Write([]byte("who"))
		_, _ = conn.Read(make([]byte, 100))
		if len(backend.Peers()) > before {
			_ = conn.SetDeadline(time.Time{})
			d.run(t)
			return d
		}
		_ = conn.Close()
	}
	t.Fatalf("no socket to %s reaches a certain backend", service)
	return nil
}

func (d *datagrams) run(t *testing.T) {
	var done sync.WaitGroup
	t.Cleanup(func() { _ = d.conn.Close(); done.Wait() })
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	done.Go(func() {
		for {
			_, _ = d.conn.Write([]byte("again")) // an error is of an earlier one
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	done.Go(func() {
		buf := make([]byte, 100)
		for {
			_, err := d.conn.Read(buf)
			select {
			case <-stop:
				return
			default:
			}
			if err == nil {
				d.answered.Add(1)
				d.last.Store(time.Now().UnixNano())
			}
		}
	})
}

// awaitSwitch waits until the second of two servers gets the datagrams, and the
// first none.
func (d *datagrams) awaitSwitch(t *testing.T, name string, servers []*testrig.Server) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		before, answered := peerCounts(servers), d.answered.Load()
		time.Sleep(300 * time.Millisecond)
		after := peerCounts(servers)
		if after[0] == before[0] && after[1] > before[1] && d.answered.Load() > answered {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: servers got %d and %d datagrams, %d answered: the client did not move to the second",
				name, after[0]-before[0], after[1]-before[1], d.answered.Load()-answered)
			return
		}
	}
}
