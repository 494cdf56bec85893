// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"math"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain does what a process has to that calls Run: see the package comment.
// Here both ends are in one process, and each keeps one of the scheduler's places.
func TestMain(m *testing.M) {
	if os.Getenv("GODEBUG") == "" {
		if err := unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), Env)); err != nil {
			panic(err)
		}
	}
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(max(4, runtime.NumCPU()))
	os.Exit(m.Run())
}

// connect runs both ends over the loopback device and returns what each saw.
func connect(t *testing.T, server, client End, at string) (served, measured Measurement, peer netip.AddrPort) {
	t.Helper()
	const here = "/proc/thread-self/ns/net"
	listener, addr, err := Listen(server.Network, netip.AddrPortFrom(netip.MustParseAddr(at), 0))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- InNamespace(here, func() error {
			fd, from, err := Accept(server.Network, listener)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			peer = from
			served, err = server.Run(fd)
			return err
		})
	}()
	err = InNamespace(here, func() error {
		fd, err := Connect(client.Network, addr)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		measured, err = client.Run(fd)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	return served, measured, peer
}

func TestEveryPairOfRolesMeasures(t *testing.T) {
	const d = 50 * time.Millisecond
	for _, c := range []struct {
		name, network, at string
		server, client    Role
	}{
		{"ping over tcp", "tcp", "127.0.0.1", Echo, Ping},
		{"ping over udp", "udp", "127.0.0.1", Echo, Ping},
		{"ping over tcp, ipv6", "tcp", "::1", Echo, Ping},
		{"bulk to the server", "tcp", "127.0.0.1", Receive, Send},
		{"bulk to the client", "tcp", "127.0.0.1", Send, Receive},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := End{Role: c.server, Network: c.network, CPU: AnyCPU, Warmup: d, Duration: d}
			client := End{Role: c.client, Network: c.network, CPU: 0, Warmup: d, Duration: d}
			served, measured, peer := connect(t, server, client, c.at)
			if c.server == Receive {
				served, measured = measured, served
			}
			if served.Thread <= 0 || measured.Thread <= 0 || measured.Thread > 1 || measured.Total <= measured.Units {
				t.Errorf("threads took %v s and %v s for %d units", served.Thread, measured.Thread, measured.Total)
			}
			if served.Thread = 0; served != (Measurement{}) {
				t.Errorf("the end that does not measure says %+v", served)
			}
			if measured.Seconds < d.Seconds() || measured.Units < 100 || measured.Lost > 0 {
				t.Errorf("measured %+v", measured)
			}
			if peer.Addr() != netip.MustParseAddr(c.at) {
				t.Errorf("peer is %s", peer)
			}
		})
	}
}

func TestLostDatagramIsSentAgain(t *testing.T) {
	// Nobody listens to the first datagram: it is read, and left without answer.
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) }()
	if err := setTimeout(fds[0], unix.SO_RCVTIMEO, 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan bool), make(chan error, 1)
	go func() {
		buf := make([]byte, 1)
		close(ready)
		_, err := unix.Read(fds[1], buf) // lost
		if err == nil {
			_, err = unix.Read(fds[1], buf)
		}
		// A late answer to an earlier datagram comes first.
		for _, answer := range []byte{buf[0] - 1, buf[0]} {
			if err == nil {
				_, err = unix.Write(fds[1], []byte{answer})
			}
		}
		done <- err
	}()
	<-ready
	p := &pinger{fd: fds[0]}
	if err := pingDatagram(p); err != nil || p.lost != 1 {
		t.Errorf("ping: %v, %d lost; want 1", err, p.lost)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPeerThatClosesIsNoMeasurement(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fds[1])
	for _, role := range []Role{Ping, Receive} {
		end := End{Role: role, Network: "tcp", CPU: AnyCPU, Duration: time.Millisecond}
		if _, err := end.Run(fds[0]); err == nil {
			t.Errorf("%s with a peer that has closed measured something", role)
		}
	}
	if _, err := (End{Role: "dance", CPU: AnyCPU}).Run(fds[0]); err == nil {
		t.Error("a role that does not exist was played")
	}
}

func TestIdleTimeIsOfAllCPUs(t *testing.T) {
	const text = "cpu  99 99 99 99 99 99 99 99 0 0\n" +
		"cpu0 1 2 3 400 50 6 7 25 0 0\n" +
		"cpu1 1 2 3 600 0 6 7 0 0 0\n" +
		"intr 12 0 0 0 0 0 0 0 0 0\n"
	got, err := parseIdle(text)
	if err != nil || got != (idleTime{seconds: 10.75, cpus: 2}) {
		t.Errorf("idle %+v, %v", got, err)
	}
	for _, wrong := range []string{"", "cpu0 1 2 3 x 5 6 7 8 9 10\n"} {
		if got, err := parseIdle(wrong); err == nil {
			t.Errorf("idle time of %q is %+v", wrong, got)
		}
	}
}

func TestBusyIsWhatIsNotIdle(t *testing.T) {
	before, after := idleTime{100, 2}, idleTime{100.6, 2}
	if got := busySeconds(0.5, before, after); math.Abs(got-0.4) > 1e-9 {
		t.Errorf("busy %v; want 0.4", got)
	}
	// Clock ticks are coarser than a round may be short.
	if got := busySeconds(0.25, before, after); got != 0 {
		t.Errorf("busy %v; want 0", got)
	}
}

func TestBusyLoopIsSeen(t *testing.T) {
	watch, err := newStopwatch()
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(300 * time.Millisecond); time.Now().Before(until); {
	}
	elapsed, busy, err := watch.stop()
	if err != nil || elapsed < 0.3 || busy < 0.2 {
		t.Errorf("%v s of spinning: %v s busy, %v", elapsed, busy, err)
	}
}

func TestMissingNamespaceIsAnError(t *testing.T) {
	err := InNamespace("/proc/self/ns/none", func() error { return nil })
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("entering a namespace that is not there: %v", err)
	}
}
