// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Server answers on one address until its test ends. Over TCP it first says in a
// line which peer it sees, then sends back what it gets. Over UDP each answer is
// that line and the datagram.
type Server struct {
	// Addr is where it listens.
	Addr netip.AddrPort

	mu    sync.Mutex
	peers []netip.AddrPort
	conns []net.Conn
	close func()
}

// Peers returns the addresses that connections and datagrams came from, in order.
func (s *Server) Peers() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]netip.AddrPort(nil), s.peers...)
}

// Close ends the server and its connections.
func (s *Server) Close() {
	s.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
}

// ServeTCP starts a TCP echo server in the namespace. Port 0 picks a free one.
func (ns *Namespace) ServeTCP(tb testing.TB, addr netip.AddrPort) *Server {
	tb.Helper()
	var listener net.Listener
	err := ns.Do(func() (err error) {
		config := net.ListenConfig{Control: freeBind}
		listener, err = config.Listen(context.Background(), "tcp", addr.String())
		return err
	})
	if err != nil {
		tb.Fatalf("serve tcp in %s: %v", ns.Name, err)
	}
	s := &Server{Addr: mustAddrPort(tb, listener.Addr()), close: func() { _ = listener.Close() }}
	tb.Cleanup(s.Close)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			peer := s.note(conn.RemoteAddr(), conn)
			go func() {
				defer func() { _ = conn.Close() }()
				if _, err := fmt.Fprintln(conn, peer); err == nil {
					_, _ = io.Copy(conn, conn)
				}
			}()
		}
	}()
	return s
}

// ServeUDP starts a UDP echo server in the namespace. Port 0 picks a free one.
func (ns *Namespace) ServeUDP(tb testing.TB, addr netip.AddrPort) *Server {
	tb.Helper()
	var conn net.PacketConn
	err := ns.Do(func() (err error) {
		config := net.ListenConfig{Control: freeBind}
		conn, err = config.ListenPacket(context.Background(), "udp", addr.String())
		return err
	})
	if err != nil {
		tb.Fatalf("serve udp in %s: %v", ns.Name, err)
	}
	s := &Server{Addr: mustAddrPort(tb, conn.LocalAddr()), close: func() { _ = conn.Close() }}
	tb.Cleanup(s.Close)
	go func() {
		buf := make([]byte, 65535)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			peer := s.note(from, nil)
			_, _ = conn.WriteTo(append([]byte(peer.String()+"\n"), buf[:n]...), from)
		}
	}()
	return s
}

func (s *Server) note(from net.Addr, conn net.Conn) netip.AddrPort {
	peer, err := netip.ParseAddrPort(from.String())
	if err != nil {
		panic(fmt.Sprintf("address of a socket: %v", err))
	}
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers = append(s.peers, peer)
	if conn != nil {
		s.conns = append(s.conns, conn)
	}
	return peer
}

// readPeer reads the line that a server begins with.
func readPeer(r *bufio.Reader) (netip.AddrPort, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read peer line: %w", err)
	}
	return netip.ParseAddrPort(strings.TrimSpace(line))
}

// freeBind lets a server take an address that is gone again or not there yet,
// and a port whose last connection lingers.
func freeBind(network, _ string, raw syscallConn) error {
	return control(raw, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if strings.HasSuffix(network, "6") {
			return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		}
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
	})
}

func mustAddrPort(tb testing.TB, addr net.Addr) netip.AddrPort {
	tb.Helper()
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		tb.Fatalf("address of a socket: %v", err)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
