// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// sendNumbers sends datagrams with these numbers, from begin on, until the receiver
// says a word.
func sendNumbers(to netip.AddrPort, size int, number func(i uint64) uint64) error {
	fds, err := connect("udp", to, 1)
	if err != nil {
		return err
	}
	defer closeAll(fds)
	datagram, word := make([]byte, size), make([]byte, 1)
	for i := uint64(0); i < 1e7; i++ {
		if _, err := receive(fds[0], word, unix.MSG_DONTWAIT); err == nil || closed(err) {
			return nil
		}
		binary.LittleEndian.PutUint64(datagram, number(i))
		if _, err := write(fds[0], datagram, 0); err != nil && !closed(err) {
			return err
		}
	}
	return fmt.Errorf("was not told to stop")
}

func gatherNumbers(t *testing.T, size int, number func(i uint64) uint64) (Measurement, error) {
	t.Helper()
	testutil.RequireRoot(t)
	listener, at, err := Listen("udp", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- sendNumbers(at, size, number) }()
	var m Measurement
	err = inNamespace(func() (err error) {
		e := End{Role: Receive, Network: "udp", Connections: 1, Size: 64, CPU: AnyCPU, Warmup: 20 * time.Millisecond, Duration: 50 * time.Millisecond}
		m, _, err = e.Serve(listener)
		return err
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
	return m, err
}

func TestLostDatagramsAreKnownByTheirNumbers(t *testing.T) {
	for _, c := range []struct {
		name   string
		number func(i uint64) uint64
		// lost per datagram that arrives
		lost uint64
	}{
		{"none", func(i uint64) uint64 { return i }, 0},
		{"three of four", func(i uint64) uint64 { return 4 * i }, 3},
		{"some overtake others", func(i uint64) uint64 { return i ^ 1 }, 0},
		{"what came before counts for nothing", func(i uint64) uint64 { return i + 1<<40 }, 0},
	} {
		m, err := gatherNumbers(t, 64, c.number)
		if err != nil {
			t.Fatal(err)
		}
		want := c.lost * m.Units
		if m.Units < 100 || m.Lost > want+4 || m.Lost+4 < want || m.Sent+1 < m.Units+m.Lost || m.Sent > m.Units+m.Lost {
			t.Errorf("%s: measured %+v", c.name, m)
		}
	}
}

func TestDatagramOfAnotherSizeIsNoMeasurement(t *testing.T) {
	m, err := gatherNumbers(t, 32, func(i uint64) uint64 { return i })
	if err == nil || !strings.Contains(err.Error(), "32 bytes") {
		t.Errorf("measured %+v, %v", m, err)
	}
}

func TestSmallDatagramHasNoPlaceForItsNumber(t *testing.T) {
	here, _ := pair(t)
	e := End{Role: Send, Network: "udp", Connections: 1, Size: 4, CPU: AnyCPU}
	if _, err := e.play([]int{here}); err == nil {
		t.Error("datagrams of 4 bytes were sent")
	}
}
