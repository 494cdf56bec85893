// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// ending is how a connection ends, and after how many exchanges.
type ending struct {
	name                       string
	connections, exchanges     int
	clientResets, serverResets bool
	samePort                   bool // each connection has the port of the one before
}

// TestEntriesCloseWithTheirConnections makes many connections and looks for
// entries in state ESTABLISHED afterwards: an end that conntrack did not see
// leaves one for five days.
func TestEntriesCloseWithTheirConnections(t *testing.T) {
	endings := []ending{
		{name: "closed", connections: 10000, exchanges: 1},
		{name: "closed after a talk", connections: 100, exchanges: 20},
		{name: "reset by the client", connections: 100, exchanges: 20, clientResets: true},
		{name: "reset by the server", connections: 100, exchanges: 20, serverResets: true},
		{name: "reset by the client, the port used again", connections: 100, exchanges: 20, clientResets: true, samePort: true},
		{name: "reset by the server, the port used again", connections: 100, exchanges: 20, serverResets: true, samePort: true},
		{name: "reset at once", connections: 100, exchanges: 1, clientResets: true},
	}
	for _, v := range tiers {
		for _, f := range families {
			t.Run(v.name+" "+f.name, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				pods := top.attachAll(network{}, 2)
				top.publish(t, f, f.addr(pods[0]))
				top.Node.SetSysctl(t, "netfilter/nf_conntrack_tcp_timeout_close", "3")
				for _, w := range ways {
					if v == directTier && w.name != "to a service" {
						continue // as in tracked, or not tracked at all
					}
					for _, e := range endings {
						if e.connections > 1000 && !thousands(v, w, f) {
							e.connections /= 50
						}
						top.wantClosed(t, w, f, pods, e)
					}
				}
			})
		}
	}
}

// thousands says where the many connections are made: once outside and once on
// the node, where eBPF carries them.
func thousands(v variant, w crossing, f family) bool {
	return v == trackedTier && (w.name == "to outside" && f.nft == "ip" || w.neighbours && f.nft == "ip6")
}

// wantClosed makes connections along a way and waits until none is left in
// state ESTABLISHED.
func (top *topology) wantClosed(t *testing.T, w crossing, f family, pods []*pod, e ending) {
	t.Helper()
	port := nextPort()
	from, to := w.ends(top, pods)
	close := serveExchanges(t, to, netip.AddrPortFrom(w.listen(f, pods), port), e)
	defer close()
	dst := netip.AddrPortFrom(w.dial(f, pods), port)
	began := time.Now()
	const workers = 8
	errs := make([]error, workers)
	var done sync.WaitGroup
	for i := range errs {
		done.Go(func() {
			errs[i] = from.Do(func() error {
				for range (e.connections + workers - 1) / workers {
					source := uint16(0)
					if e.samePort {
						source = uint16(10000 + i)
					}
					if err := connectOnce(dst, source, e); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	done.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("%s %s, %s: %v", f.name, w.name, e.name, err)
		return
	}
	t.Logf("%s %s, %s: %d connections in %v", f.name, w.name, e.name, e.connections, time.Since(began).Round(time.Millisecond))
	var entries []entry
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		entries = top.entries(t)[port]
		if e.connections > 1000 && len(entries) < e.connections/2 {
			t.Errorf("%s %s, %s: %d entries of %d connections", f.name, w.name, e.name, len(entries), e.connections)
		}
		open := slices.DeleteFunc(entries, func(e entry) bool { return e.state == "TIME_WAIT" || e.state == "CLOSE" })
		if len(open) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s %s, %s: %d entries of %d connections stay open, as %s",
				f.name, w.name, e.name, len(open), e.connections, open[0].text)
			return
		}
	}
}

const exchangeSize = 64

// serveExchanges answers each message with itself.
func serveExchanges(t *testing.T, ns *testrig.Namespace, addr netip.AddrPort, e ending) (close func()) {
	t.Helper()
	var listener net.Listener
	err := ns.Do(func() (err error) {
		listener, err = net.Listen("tcp", addr.String())
		return err
	})
	if err != nil {
		t.Fatalf("listen in %s: %v", ns.Name, err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buf := make([]byte, exchangeSize)
				for i := 0; ; i++ {
					if _, err := io.ReadFull(conn, buf); err != nil {
						return
					}
					if i == e.exchanges && e.serverResets {
						_ = conn.(*net.TCPConn).SetLinger(0)
						return
					}
					if _, err := conn.Write(buf); err != nil {
						return
					}
				}
			}()
		}
	}()
	return func() { _ = listener.Close() }
}

// connectOnce opens a connection, exchanges messages and ends it, with a socket of
// the calling thread's namespace: ten thousand threads would take longer.
// A source port of 0 lets the kernel choose.
func connectOnce(dst netip.AddrPort, source uint16, e ending) error {
	domain, to, from := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(dst.Port()), Addr: as4(dst.Addr())}),
		unix.Sockaddr(&unix.SockaddrInet4{Port: int(source)})
	if dst.Addr().Is6() {
		domain, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(dst.Port()), Addr: dst.Addr().As16()}
		from = &unix.SockaddrInet6{Port: int(source)}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	patience := unix.NsecToTimeval((5 * time.Second).Nanoseconds())
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, from))
	if err != nil {
		return fmt.Errorf("set up socket: %w", err)
	}
	if err := patiently(func() error { return unix.Connect(fd, to) }); err != nil {
		return fmt.Errorf("connect to %s: %w", dst, err)
	}
	buf := make([]byte, exchangeSize)
	for range e.exchanges {
		if err := exchangeRaw(fd, buf); err != nil {
			return err
		}
	}
	if e.serverResets {
		if err := exchangeRaw(fd, buf); !errors.Is(err, unix.ECONNRESET) {
			return fmt.Errorf("the server did not reset the connection: %w", err)
		}
	}
	if e.clientResets {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	return nil
}

func exchangeRaw(fd int, buf []byte) error {
	if _, err := unix.Write(fd, buf); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	n, err := unix.Read(fd, buf)
	if err == nil && n != len(buf) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return nil
}

// patiently repeats a call that a signal of the Go runtime interrupted, or whose
// address is in use: a process that another test starts at this moment holds the
// last socket until it executes its program.
func patiently(f func() error) error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		err := f()
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EADDRNOTAVAIL) || time.Now().After(deadline) {
			return err
		}
	}
}

// as4 returns the zero address for one of the other family.
func as4(addr netip.Addr) (four [4]byte) {
	if addr.Is4() {
		four = addr.As4()
	}
	return four
}
