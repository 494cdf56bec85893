// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// flow is a way in one family, with the case's ports: what a client connects to
// and a server listens on.
type flow struct {
	c              *agreeRun
	f              family
	client, server *agreeHost
	from, to       netip.AddrPort // as the client sees it
	listen         netip.AddrPort
}

// open makes the flow of a case. What DNAT it needs is there (publish).
func (c *agreeRun) open(w way, f family) flow {
	c.t.Helper()
	base := c.port
	l := flow{c: c, f: f, client: c.hosts[w.client], server: c.hosts[w.server]}
	l.from = netip.AddrPortFrom(l.client.addrs[f.name], base)
	l.listen = netip.AddrPortFrom(l.server.addrs[f.name], base+1)
	l.to = l.listen
	if w.via != nil {
		l.to = netip.AddrPortFrom(w.via[f.name], base+2)
	}
	return l
}

// clientEnd names the end where the client's packets are recorded.
func (l flow) clientEnd() string {
	if l.client.name == "node" {
		return "veth of a"
	}
	return l.client.name
}

// dial connects the client's socket, "tcp" or "udp". The connection ends with the
// case.
func (l flow) dial(network string, opts ...sockopt) (net.Conn, error) {
	dialer := net.Dialer{Timeout: testrig.Timeout, Control: controlled(opts)}
	dialer.LocalAddr = net.TCPAddrFromAddrPort(l.from)
	if network == "udp" {
		dialer.LocalAddr = net.UDPAddrFromAddrPort(l.from)
	}
	var conn net.Conn
	err := l.client.Do(func() (err error) {
		conn, err = dialer.DialContext(context.Background(), network, l.to.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.client.Name, err)
	}
	l.c.t.Cleanup(func() { _ = conn.Close() })
	return conn, nil
}

// mustDial is dial that ends the case on an error.
func (l flow) mustDial(network string, opts ...sockopt) net.Conn {
	l.c.t.Helper()
	conn, err := l.dial(network, opts...)
	if err != nil {
		l.c.t.Fatalf("%s: %v", l.c.name, err)
	}
	return conn
}

// serveTCP calls handle for each connection, notes which peer it sees, and closes
// it. The channel has what handle returned.
func (l flow) serveTCP(handle func(net.Conn) error, opts ...sockopt) <-chan error {
	l.c.t.Helper()
	var listener net.Listener
	config := net.ListenConfig{Control: controlled(opts)}
	err := l.server.Do(func() (err error) {
		listener, err = config.Listen(context.Background(), "tcp", l.listen.String())
		return err
	})
	if err != nil {
		l.c.t.Fatalf("%s: serve tcp in %s: %v", l.c.name, l.server.Name, err)
	}
	l.c.t.Cleanup(func() { _ = listener.Close() })
	done := make(chan error, 100)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.c.note("server on %s sees %s", l.listen, conn.RemoteAddr())
			go func() {
				err := handle(conn)
				done <- errors.Join(err, ignoreClosed(conn.Close()))
			}()
		}
	}()
	return done
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// echo sends back what it gets until the client has said everything.
func echo(conn net.Conn) error {
	_, err := io.Copy(conn, conn)
	return err
}

// serveUDP sends every datagram back and notes which peers it sees. Closing what
// it returns closes the port.
func (l flow) serveUDP(opts ...sockopt) net.PacketConn {
	l.c.t.Helper()
	var conn net.PacketConn
	config := net.ListenConfig{Control: controlled(opts)}
	err := l.server.Do(func() (err error) {
		conn, err = config.ListenPacket(context.Background(), "udp", l.listen.String())
		return err
	})
	if err != nil {
		l.c.t.Fatalf("%s: serve udp in %s: %v", l.c.name, l.server.Name, err)
	}
	l.c.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 65535)
		seen := map[string]bool{}
		for {
			n, from, err := conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error about an answer
			}
			if !seen[from.String()] {
				seen[from.String()] = true
				l.c.note("server on %s sees %s", l.listen, from)
			}
			_, _ = conn.WriteTo(buf[:n], from)
		}
	}()
	return conn
}

// exchange sends a datagram and compares the answer. It returns an error that is
// os.ErrDeadlineExceeded when there is none.
func exchange(conn net.Conn, payload []byte) error {
	_, err := conn.Write(payload)
	if errors.Is(err, unix.EMSGSIZE) {
		_, err = conn.Write(payload) // that was the error to an earlier one
	}
	if err != nil {
		return fmt.Errorf("send datagram: %w", err)
	}
	buf := make([]byte, 65535)
	// Twice half the time: a deadline that passes while a busy machine lets the
	// whole process stand still says nothing about the answer.
	for range 2 {
		if err = conn.SetReadDeadline(time.Now().Add(testrig.Timeout / 8)); err != nil {
			return err
		}
		err = readAnswer(conn, buf, payload)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return err
}

// readAnswer reads until the answer to payload comes.
func readAnswer(conn net.Conn, buf, payload []byte) error {
	for {
		n, err := conn.Read(buf)
		if err != nil && !errors.Is(err, unix.EMSGSIZE) {
			return fmt.Errorf("read datagram: %w", err)
		}
		// Another one is the late answer to what was repeated.
		if err == nil && string(buf[:n]) == string(payload) {
			return nil
		}
	}
}

// payload returns n bytes that differ from call to call.
func (c *agreeRun) payload(n, number int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i*7 + i>>8 + number*131)
	}
	return data
}

// mayBeLost is how many datagrams of a case may have to be repeated: some are over
// an MTU that is not known yet, and on a busy machine an answer may be late, or a
// queue of the kernel full (net.core.netdev_max_backlog). More of them are on a way that does not work, even if each
// arrives at last by another one.
const mayBeLost = 4

// exchangeAll exchanges count datagrams of each of the sizes.
func (l flow) exchangeAll(conn net.Conn, count int, sizes ...int) {
	l.c.t.Helper()
	for i := range count {
		for _, size := range sizes {
			payload := l.c.payload(size, i)
			err := exchange(conn, payload)
			for ; errors.Is(err, os.ErrDeadlineExceeded) && l.c.lost < mayBeLost; err = exchange(conn, payload) {
				l.c.lost++
			}
			if err != nil {
				l.c.errorf("%s > %s: datagram %d of %d bytes, after %d that were lost: %v", l.from, l.to, i, size, l.c.lost, err)
				return
			}
		}
	}
}

// roundTrip sends bytes on a connection to echo and compares what comes back. It
// gives up when nothing moves.
func roundTrip(conn net.Conn, data []byte) error {
	sent := make(chan error, 1)
	go func() {
		if err := conn.SetWriteDeadline(time.Now().Add(3 * testrig.Timeout)); err != nil {
			sent <- err
			return
		}
		_, err := conn.Write(data)
		sent <- err
	}()
	if err := conn.SetReadDeadline(time.Now().Add(3 * testrig.Timeout)); err != nil {
		return err
	}
	return errors.Join(readBack(conn, data), <-sent)
}

func readBack(conn io.Reader, data []byte) error {
	got := make([]byte, len(data))
	if n, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("read byte %d of %d: %w", n, len(data), err)
	}
	if string(got) != string(data) {
		return errors.New("read: not what was sent")
	}
	return nil
}

// finish ends a connection from the client's side and waits for the server to
// have seen it, and for conntrack.
func (l flow) finish(conn net.Conn, done <-chan error) {
	l.c.t.Helper()
	l.close(conn, done)
	l.wantClosed(l.from.Port(), l.from.Port())
}

// close ends a connection from the client's side and waits for the server to have
// seen it.
func (l flow) close(conn net.Conn, done <-chan error) {
	l.c.t.Helper()
	err := conn.(*net.TCPConn).CloseWrite()
	if err == nil {
		err = conn.SetReadDeadline(time.Now().Add(testrig.Timeout))
	}
	if err == nil {
		_, err = io.Copy(io.Discard, conn)
	}
	if err = errors.Join(err, conn.Close()); err != nil {
		l.c.errorf("%s > %s: close: %v", l.from, l.to, err)
	}
	l.served(done)
}

// served waits until a handler of the server has ended.
func (l flow) served(done <-chan error) {
	l.c.t.Helper()
	select {
	case err := <-done:
		if err != nil {
			l.c.errorf("server on %s: %v", l.listen, err)
		}
	case <-time.After(testrig.Timeout):
		l.c.errorf("server on %s: the connection does not end", l.listen)
	}
}

// wantClosed waits until conntrack knows that the connections from these ports are
// over, or forgets them in a moment.
func (l flow) wantClosed(first, last uint16) {
	l.c.t.Helper()
	open := regexp.MustCompile(`(?m)^tcp +6 \d{3,} ESTABLISHED src=\S+ dst=\S+ sport=(\d+) .*$`)
	for deadline := time.Now().Add(testrig.Timeout); ; time.Sleep(10 * time.Millisecond) {
		var left []string
		out, err := l.c.Node.Run("conntrack", "-L", "-p", "tcp", "--state", "ESTABLISHED", "-f", strings.ToLower(l.f.name))
		for _, entry := range open.FindAllStringSubmatch(out, -1) {
			if port, _ := strconv.ParseUint(entry[1], 10, 16); uint16(port) >= first && uint16(port) <= last {
				left = append(left, entry[0])
			}
		}
		if err == nil && left == nil {
			return
		}
		if time.Now().After(deadline) {
			l.c.errorf("%s > %s is over, but conntrack has (%v) %q", l.from, l.to, err, left)
			return
		}
	}
}

// await waits for a packet at an end.
func (c *agreeRun) await(end, what string, fits func(testrig.Arrival) bool) bool {
	c.t.Helper()
	h := c.hosts[end]
	for deadline := time.Now().Add(testrig.Timeout); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if h.record.Has(func(a testrig.Arrival) bool { return a.HasPort(c.port, c.port+portsPerCase) && fits(a) }) {
			return true
		}
	}
	c.errorf("%s did not receive %s", end, what)
	return false
}

// sendRaw sends an IP payload of any protocol from the flow's client.
func (c *agreeRun) sendRaw(l flow, protocol int, payload []byte, opts ...sockopt) {
	c.t.Helper()
	err := l.client.Do(func() error {
		domain := unix.AF_INET
		if l.to.Addr().Is6() {
			domain = unix.AF_INET6
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return fmt.Errorf("open raw socket: %w", err)
		}
		defer func() { _ = unix.Close(fd) }()
		for _, opt := range opts {
			if err := opt(fd, domain == unix.AF_INET6); err != nil {
				return err
			}
		}
		if err := unix.Bind(fd, sockaddr(l.from.Addr())); err != nil {
			return fmt.Errorf("bind raw socket: %w", err)
		}
		return unix.Sendto(fd, payload, 0, sockaddr(l.to.Addr()))
	})
	if err != nil {
		c.t.Fatalf("%s: send protocol %d: %v", c.name, protocol, err)
	}
}

func sockaddr(addr netip.Addr) unix.Sockaddr {
	if addr.Is6() {
		return &unix.SockaddrInet6{Addr: addr.As16()}
	}
	return &unix.SockaddrInet4{Addr: addr.As4()}
}
