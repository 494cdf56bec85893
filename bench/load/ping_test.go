// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns two connected sockets that keep the borders of what is written.
func pair(t *testing.T) (here, there int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fds[1]) })
	if err := setTimeout(fds[1], unix.SO_RCVTIMEO, patience); err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

// echoBadly loses the first datagram. It answers the second one, which has to be
// the same, and before that it answers one that has never been.
func echoBadly(fd int) error {
	var first, again [1]byte
	if _, err := unix.Read(fd, first[:]); err != nil {
		return err
	}
	if n, err := unix.Read(fd, again[:]); err != nil || n == 0 || first != again {
		return fmt.Errorf("sent %v, and then %v, %w", first, again, err)
	}
	if _, err := unix.Write(fd, []byte{again[0] - 1}); err != nil {
		return err
	}
	time.Sleep(10 * time.Millisecond)
	if _, _, err := unix.Recvfrom(fd, first[:], unix.MSG_DONTWAIT); err != unix.EAGAIN {
		return fmt.Errorf("a late answer was taken for the right one: %w", err)
	}
	if _, err := unix.Write(fd, again[:]); err != nil {
		return err
	}
	return echoWell(fd)
}

func echoWell(fd int) error {
	buf := make([]byte, 1)
	for {
		n, err := unix.Read(fd, buf)
		if n == 0 || err != nil {
			return err
		}
		if _, err := unix.Write(fd, buf); err != nil {
			return err
		}
	}
}

func TestLostDatagramIsSentAgain(t *testing.T) {
	for _, connections := range []int{1, 3} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			var fds []int
			done := make(chan error, connections)
			for i := range connections {
				here, there := pair(t)
				fds = append(fds, here)
				go func() {
					if i == 0 {
						done <- echoBadly(there)
					} else {
						done <- echoWell(there)
					}
				}()
			}
			e := End{Role: Ping, Network: "udp", Connections: connections, CPU: AnyCPU, Duration: 5 * resend / 2}
			m, err := e.play(fds)
			if err != nil || m.Lost != 1 || m.Units < 100 {
				t.Errorf("measured %+v, %v; want 1 lost", m, err)
			}
			// With one connection there was nothing else.
			if slowest := m.Latency.P999 >= resend.Seconds(); connections == 1 && m.Units < 900 && !slowest {
				t.Errorf("latency %+v", m.Latency)
			}
			for range connections {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestSilentPeerIsNoMeasurement(t *testing.T) {
	for connections, network := range map[int]string{1: "udp", 2: "tcp"} {
		var fds []int
		for range connections {
			here, _ := pair(t)
			fds = append(fds, here)
		}
		e := End{Role: Ping, Network: network, Connections: connections, CPU: AnyCPU, Duration: 2 * patience}
		if _, err := e.play(fds); err == nil {
			t.Errorf("%d pings over %s that nobody answered have measured something", connections, network)
		}
	}
}

func TestPeerThatClosesIsNoMeasurement(t *testing.T) {
	for _, role := range []Role{Ping, Receive} {
		for _, connections := range []int{1, 2} {
			var fds []int
			for range connections {
				here, there := pair(t)
				fds = append(fds, here)
				_ = unix.Shutdown(there, unix.SHUT_RDWR)
			}
			e := End{Role: role, Network: "tcp", Connections: connections, CPU: AnyCPU, Duration: time.Millisecond}
			if m, err := e.play(fds); err == nil {
				t.Errorf("%s over %d connections that are closed measured %+v", role, connections, m)
			}
		}
	}
}
