// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Timeout is how long a client waits for an answer that should come. It is far
// above any delay of a working path, and costs nothing there.
var Timeout = 3 * time.Second * Slowness

// Patience is how long a client waits for an answer that should not come.
var Patience = 400 * time.Millisecond * Slowness

// Slowness is how much longer this machine may take than a real one: what
// internal/kernels emulates sets ZIPLINE_TEST_SLOWNESS.
var Slowness = slowness()

func slowness() time.Duration {
	factor, err := strconv.Atoi(os.Getenv("ZIPLINE_TEST_SLOWNESS"))
	if err != nil || factor < 1 {
		return 1
	}
	return time.Duration(factor)
}

// Socket says how a client's packets look. The zero value is an ordinary socket.
type Socket struct {
	// Source is the address to bind to. Optional.
	Source netip.AddrPort
	// TTL is the TTL or hop limit. Optional.
	TTL int
	// IPOptions are raw IPv4 options. Optional.
	IPOptions []byte
	// NoChecksum sends UDP over IPv4 with checksum 0.
	NoChecksum bool
	// DontFragment sets DF and refuses to fragment on the sender.
	DontFragment bool
	// Timeout for the whole exchange. Optional: [Timeout].
	Timeout time.Duration
}

type syscallConn = syscall.RawConn

// Dial opens a TCP ("tcp") or UDP ("udp") connection in the namespace. Its
// deadline is set to the socket's timeout from now.
func (ns *Namespace) Dial(network string, dst netip.AddrPort, s Socket) (net.Conn, error) {
	timeout := s.timeout()
	dialer := net.Dialer{Control: s.control, Timeout: timeout}
	if s.Source.IsValid() {
		if network == "tcp" {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(s.Source)
		} else {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(s.Source)
		}
	}
	var conn net.Conn
	err := ns.Do(func() (err error) {
		conn, err = dialer.DialContext(context.Background(), network, dst.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ns.Name, err)
	}
	return conn, conn.SetDeadline(time.Now().Add(timeout))
}

// EchoTCP connects to an echo server, sends payload, compares what comes back
// and returns the peer address that the server saw.
func (ns *Namespace) EchoTCP(dst netip.AddrPort, payload []byte, s Socket) (netip.AddrPort, error) {
	conn, err := ns.Dial("tcp", dst, s)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	peer, err := readPeer(r)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s: echo tcp %s: %w", ns.Name, dst, err)
	}
	return peer, Exchange(conn, r, payload)
}

// Exchange sends payload on a connection to an echo server whose first line was
// read, and compares what comes back.
func Exchange(conn net.Conn, r io.Reader, payload []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(payload)
		sent <- err
	}()
	got := make([]byte, len(payload))
	if _, err := io.ReadFull(r, got); err != nil {
		return fmt.Errorf("read echo: %w", err)
	}
	if !bytes.Equal(got, payload) {
		return errors.New("read echo: not what was sent")
	}
	return <-sent
}

// EchoUDP sends payload as one datagram to an echo server, compares the answer
// and returns the peer address that the server saw. It repeats what is not
// answered.
func (ns *Namespace) EchoUDP(dst netip.AddrPort, payload []byte, s Socket) (netip.AddrPort, error) {
	conn, err := ns.Dial("udp", dst, s)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer func() { _ = conn.Close() }()
	return echoDatagram(conn, payload, s.timeout())
}

// attempts is how often an exchange of single packets is tried within its time. A
// busy machine drops packets on their way between any two namespaces
// (net.core.netdev_max_backlog); one that arrives shows that the path works.
const attempts = 4

func echoDatagram(conn net.Conn, payload []byte, timeout time.Duration) (peer netip.AddrPort, err error) {
	for range attempts {
		if err := conn.SetDeadline(time.Now().Add(timeout / attempts)); err != nil {
			return netip.AddrPort{}, err
		}
		if peer, err = exchangeDatagram(conn, payload); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return peer, err
}

func exchangeDatagram(conn net.Conn, payload []byte) (netip.AddrPort, error) {
	if _, err := conn.Write(payload); err != nil {
		return netip.AddrPort{}, fmt.Errorf("send datagram: %w", err)
	}
	buf := make([]byte, 65535)
	n, err := conn.Read(buf)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read datagram: %w", err)
	}
	r := bufio.NewReader(bytes.NewReader(buf[:n]))
	peer, err := readPeer(r)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if rest, _ := io.ReadAll(r); !bytes.Equal(rest, payload) {
		return netip.AddrPort{}, errors.New("read datagram: not what was sent")
	}
	return peer, nil
}

// Bulk sends n random bytes to an echo server while it reads them back, and
// compares the two streams' digests. It gives up when nothing moves for
// [Timeout].
func (ns *Namespace) Bulk(dst netip.AddrPort, n int64) error {
	conn, err := ns.Dial("tcp", dst, Socket{})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	if _, err := readPeer(r); err != nil {
		return fmt.Errorf("%s: bulk %s: %w", ns.Name, dst, err)
	}
	moving := &liveConn{Conn: conn}
	sent, received := sha256.New(), sha256.New()
	done := make(chan error, 1)
	go func() {
		seed := [32]byte{byte(n), byte(n >> 8)}
		source := io.LimitReader(rand.NewChaCha8(seed), n)
		_, err := io.Copy(moving, io.TeeReader(source, sent))
		done <- err
	}()
	if _, err := io.CopyN(received, io.MultiReader(buffered(r), moving), n); err != nil {
		return fmt.Errorf("%s: bulk %s: %w", ns.Name, dst, err)
	}
	if err := <-done; err != nil {
		return fmt.Errorf("%s: bulk %s: %w", ns.Name, dst, err)
	}
	if !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
		return fmt.Errorf("%s: bulk %s: echo differs from what was sent", ns.Name, dst)
	}
	return nil
}

// buffered returns what r holds already.
func buffered(r *bufio.Reader) io.Reader { return io.LimitReader(r, int64(r.Buffered())) }

// liveConn moves the deadline on with every call: it limits a standstill, not
// the whole transfer.
type liveConn struct{ net.Conn }

// Read implements [io.Reader].
func (c *liveConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(Timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write implements [io.Writer].
func (c *liveConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(Timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (s Socket) timeout() time.Duration {
	if s.Timeout == 0 {
		return Timeout
	}
	return s.Timeout
}

// control sets what s says on a new socket.
func (s Socket) control(network, _ string, raw syscallConn) error {
	v6 := network[len(network)-1] == '6'
	level, ttl, discover, do := unix.SOL_IP, unix.IP_TTL, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if v6 {
		level, ttl, discover, do = unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
	}
	return control(raw, func(fd int) error {
		var errs []error
		if s.TTL != 0 {
			errs = append(errs, unix.SetsockoptInt(fd, level, ttl, s.TTL))
		}
		if s.IPOptions != nil {
			errs = append(errs, unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, string(s.IPOptions)))
		}
		if s.NoChecksum {
			errs = append(errs, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1))
		}
		if s.DontFragment {
			errs = append(errs, unix.SetsockoptInt(fd, level, discover, do))
		}
		return errors.Join(errs...)
	})
}

func control(raw syscallConn, f func(fd int) error) error {
	var err error
	if ctl := raw.Control(func(fd uintptr) { err = f(int(fd)) }); ctl != nil {
		return ctl
	}
	return err
}

// ReadPeer reads the line that a TCP echo server begins with and nothing more.
func ReadPeer(conn io.Reader) (netip.AddrPort, error) {
	var line []byte
	for b := make([]byte, 1); b[0] != '\n'; line = append(line, b[0]) {
		if _, err := io.ReadFull(conn, b); err != nil {
			return netip.AddrPort{}, fmt.Errorf("read peer line: %w", err)
		}
	}
	return netip.ParseAddrPort(string(bytes.TrimSpace(line)))
}
