// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// tcpCases are the ways of TCP to begin and to end, and what many programs do with
// UDP.
func tcpCases() []agreeCase {
	return slices.Concat(
		perWay(agreeCase{name: "a half-closed connection goes on"}, natWays, (*agreeRun).halfClosed),
		perWay(agreeCase{name: "the client resets the connection", resets: true}, natWays, func(c *agreeRun, l flow) { c.resetByClient(l, 1) }),
		perWay(agreeCase{name: "the server resets the connection", resets: true}, natWays, (*agreeRun).resetByServer),
		perWay(agreeCase{name: "a closed port resets", resets: true}, slices.Concat(natWays, []way{toOther, toNode, fromNode, toItself}), func(c *agreeRun, l flow) {
			for range 3 {
				if conn, err := l.dial("tcp"); !errors.Is(err, unix.ECONNREFUSED) {
					c.errorf("connect to a closed port: %v, %v", conn, err)
				}
			}
		}),
		perWay(agreeCase{name: "a port is used again right after a reset", resets: true}, natWays, func(c *agreeRun, l flow) { c.resetByClient(l, 3) }),
		perWay(agreeCase{name: "a port is used again right after a close"}, natWays, (*agreeRun).reuseAfterClose),
		perWay(agreeCase{name: "urgent data", fast: fastOfWay}, natWays, (*agreeRun).urgent),
		perWay(agreeCase{name: "many short connections"}, []way{toOutside, toService}, (*agreeRun).shortConnections),
		perWay(agreeCase{name: "many questions from one socket", fast: fastOfWay}, []way{toOutside, toService}, func(c *agreeRun, l flow) {
			l.serveUDP()
			l.exchangeAll(l.mustDial("udp"), 100, 30, 200)
		}),
		perWay(agreeCase{name: "one question from each of many sockets"}, []way{toOutside, toService}, (*agreeRun).manySockets),
	)
}

// halfClosed lets the server say much after the client has said all.
func (c *agreeRun) halfClosed(l flow) {
	answer := c.payload(1<<20, 1)
	done := l.serveTCP(func(conn net.Conn) error {
		got, err := io.ReadAll(conn)
		if string(got) != "tell me" {
			err = errors.Join(err, fmt.Errorf("got %q", got))
		}
		_, writeErr := conn.Write(answer)
		return errors.Join(err, writeErr)
	})
	conn := l.mustDial("tcp")
	_, err := conn.Write([]byte("tell me"))
	if err = errors.Join(err, conn.(*net.TCPConn).CloseWrite(), conn.SetReadDeadline(time.Now().Add(2*testrig.Timeout)), readBack(conn, answer)); err != nil {
		c.errorf("%v", err)
	}
	l.finishRead(conn, done)
}

// finishRead ends a connection whose client has closed its side already.
func (l flow) finishRead(conn net.Conn, done <-chan error) {
	l.c.t.Helper()
	if n, err := io.Copy(io.Discard, conn); n != 0 || err != nil {
		l.c.errorf("at the end: %d bytes, %v", n, err)
	}
	_ = conn.Close()
	l.served(done)
	l.wantClosed(l.from.Port(), l.from.Port())
}

// resetByClient ends connections that eBPF carries by a reset, one after the other.
func (c *agreeRun) resetByClient(l flow, count int) {
	seen := make(chan error, count)
	done := l.serveTCP(func(conn net.Conn) error {
		seen <- echo(conn)
		return nil
	})
	for range count {
		conn := l.mustDial("tcp")
		l.roundTrips(conn, 20)
		if err := errors.Join(conn.(*net.TCPConn).SetLinger(0), conn.Close()); err != nil {
			c.errorf("reset: %v", err)
		}
		l.served(done)
		if err := <-seen; !errors.Is(err, unix.ECONNRESET) {
			c.errorf("the server sees %v; want a reset", err)
		}
		l.wantClosed(l.from.Port(), l.from.Port())
	}
}

// resetByServer is the same from the other side.
func (c *agreeRun) resetByServer(l flow) {
	done := l.serveTCP(func(conn net.Conn) error {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return err
			}
			if string(buf[:n]) == "reset" {
				return conn.(*net.TCPConn).SetLinger(0)
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				return err
			}
		}
	})
	conn := l.mustDial("tcp")
	l.roundTrips(conn, 20)
	_, err := conn.Write([]byte("reset"))
	if err = errors.Join(err, conn.SetReadDeadline(time.Now().Add(testrig.Timeout))); err != nil {
		c.errorf("%v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		c.errorf("the client sees %v; want a reset", err)
	}
	l.served(done)
	l.wantClosed(l.from.Port(), l.from.Port())
}

// roundTrips makes small round trips, so that eBPF takes over.
func (l flow) roundTrips(conn net.Conn, count int) {
	l.c.t.Helper()
	for i := range count {
		if err := roundTrip(conn, l.c.payload(100, i)); err != nil {
			l.c.errorf("%s > %s: round trip %d: %v", l.from, l.to, i, err)
			return
		}
	}
}

// reuseAfterClose uses the same two ports for one connection after the other. The
// server closes first: only then may the client take its port at once.
func (c *agreeRun) reuseAfterClose(l flow) {
	done := l.serveTCP(func(conn net.Conn) error {
		_, err := io.CopyN(conn, conn, 20*100)
		return err
	})
	for i := range 3 {
		var conn net.Conn
		var err error
		// The client's side may need a moment to be closed.
		for deadline := time.Now().Add(testrig.Timeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if conn, err = l.dial("tcp"); !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EADDRINUSE) {
				break
			}
		}
		if err != nil {
			c.errorf("connection %d: %v", i, err)
			return
		}
		l.roundTrips(conn, 20)
		l.served(done)
		l.finishRead(conn, closedChannel())
	}
}

func closedChannel() <-chan error {
	done := make(chan error, 1)
	done <- nil
	return done
}

// urgent sends urgent bytes amid others.
func (c *agreeRun) urgent(l flow) {
	inline := option(unix.SOL_SOCKET, unix.SO_OOBINLINE, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	done := l.serveTCP(func(conn net.Conn) error {
		// Without splice, which does not know urgent bytes.
		_, err := io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
		return err
	}, inline)
	conn := l.mustDial("tcp")
	for i := range 20 {
		l.roundTrips(conn, 2)
		raw, err := conn.(syscall.Conn).SyscallConn()
		if err == nil {
			err = withFD(raw, func(fd int) error { return unix.Sendto(fd, []byte{byte(i)}, unix.MSG_OOB, nil) })
		}
		if err = errors.Join(err, readBack(conn, []byte{byte(i)})); err != nil {
			c.errorf("urgent byte %d: %v", i, err)
			return
		}
	}
	l.finish(conn, done)
}

// shortConnections opens and closes connections with different ports.
func (c *agreeRun) shortConnections(l flow) {
	done := l.serveTCP(echo)
	for i := range 10 {
		each := l
		each.from = netip.AddrPortFrom(l.from.Addr(), c.port+4+uint16(i))
		conn, err := each.dial("tcp")
		if err != nil {
			c.errorf("connection %d: %v", i, err)
			return
		}
		l.roundTrips(conn, 2)
		each.close(conn, done)
	}
	l.wantClosed(c.port, c.port+portsPerCase-1)
}

// manySockets asks one question from each of many sockets.
func (c *agreeRun) manySockets(l flow) {
	l.serveUDP()
	for i := range 30 {
		each := l
		each.from = netip.AddrPortFrom(l.from.Addr(), c.port+4+uint16(i))
		each.exchangeAll(each.mustDial("udp"), 1, 60)
	}
}

// longCases take their time: longer than it takes until conntrack has to be asked
// again.
func longCases() []agreeCase {
	const long = 6 * time.Second
	return slices.Concat(
		perWay(agreeCase{name: "tcp that goes on for long", waits: true}, natWays, func(c *agreeRun, l flow) {
			done := l.serveTCP(echo)
			conn := l.mustDial("tcp")
			for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				l.roundTrips(conn, 1)
			}
			l.finish(conn, done)
		}),
		perWay(agreeCase{name: "udp that goes on for long", waits: true}, natWays, func(c *agreeRun, l flow) {
			l.serveUDP()
			conn := l.mustDial("udp")
			for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				l.exchangeAll(conn, 1, 100)
			}
		}),
		perWay(agreeCase{name: "tcp that is silent for long", waits: true}, natWays, func(c *agreeRun, l flow) {
			done := l.serveTCP(echo)
			conn := l.mustDial("tcp")
			l.roundTrips(conn, 20)
			time.Sleep(long)
			l.roundTrips(conn, 20)
			l.finish(conn, done)
		}),
		perWay(agreeCase{name: "udp that is silent for long", waits: true}, natWays, func(c *agreeRun, l flow) {
			l.serveUDP()
			conn := l.mustDial("udp")
			l.exchangeAll(conn, 20, 100)
			time.Sleep(long)
			l.exchangeAll(conn, 20, 100)
		}),
		perWay(agreeCase{name: "a receiver that does not read", waits: true}, natWays, func(c *agreeRun, l flow) {
			// Small buffers are full soon: the window closes.
			small := option(unix.SOL_SOCKET, unix.SO_RCVBUF, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10)
			data := c.payload(1<<20, 1)
			done := l.serveTCP(func(conn net.Conn) error {
				time.Sleep(long)
				if err := readBack(conn, data); err != nil {
					return err
				}
				_, err := conn.Write([]byte("all"))
				return err
			}, small)
			conn := l.mustDial("tcp", option(unix.SOL_SOCKET, unix.SO_SNDBUF, unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10))
			start := time.Now()
			err := conn.SetDeadline(time.Now().Add(long + 3*testrig.Timeout))
			if err == nil {
				_, err = conn.Write(data)
			}
			if elapsed := time.Since(start); elapsed < long/2 {
				c.errorf("all was sent in %v: the window did not close", elapsed)
			}
			if err = errors.Join(err, readBack(conn, []byte("all"))); err != nil {
				c.errorf("%v", err)
			}
			l.finish(conn, done)
		}),
	)
}
