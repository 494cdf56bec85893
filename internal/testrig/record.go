// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Recorder keeps what a device receives, each kind of packet once. Unlike a
// [Sniffer] it verifies checksums and costs next to nothing until it is asked.
type Recorder struct {
	tb testing.TB
	fd int

	mu    sync.Mutex
	seen  map[Arrival]Seen
	flows map[fragmentOf]Arrival // first fragments
	buf   []byte
}

// Seen says how often a kind of packet arrived.
type Seen struct {
	Packets int
	// Largest is the length of the largest frame.
	Largest int
}

type fragmentOf struct {
	src, dst netip.Addr
	id       uint32
}

// Limits of what a recorder holds: bytes that it was not asked for yet, and of
// one frame (BIG TCP).
const (
	recordBuffer = 256 << 20
	recordFrame  = 1 << 19
)

// Record starts to record what a device of the namespace receives, until the end
// of the test.
func (ns *Namespace) Record(tb testing.TB, device string) *Recorder {
	tb.Helper()
	r := &Recorder{tb: tb, fd: -1, seen: map[Arrival]Seen{}, flows: map[fragmentOf]Arrival{}, buf: make([]byte, recordFrame)}
	err := ns.Do(func() (err error) {
		var addr *unix.SockaddrLinklayer
		if r.fd, addr, err = packetSocket(device); err != nil {
			return err
		}
		addr.Protocol = networkOrder(unix.ETH_P_ALL)
		return errors.Join(
			unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, recordBuffer),
			unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.Bind(r.fd, addr))
	})
	tb.Cleanup(r.Stop)
	if err != nil {
		tb.Fatalf("record %s of %s: %v", device, ns.Name, err)
	}
	return r
}

// Has says whether a packet that fits has arrived and was not taken yet.
func (r *Recorder) Has(fits func(Arrival) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drain()
	for a := range r.seen {
		if fits(a) {
			return true
		}
	}
	return false
}

// Take returns what arrived with a port in [lo, hi), and forgets it.
func (r *Recorder) Take(lo, hi uint16) map[Arrival]Seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drain()
	taken := map[Arrival]Seen{}
	for a, seen := range r.seen {
		if a.HasPort(lo, hi) {
			taken[a] = seen
			delete(r.seen, a)
		}
	}
	return taken
}

func (r *Recorder) drain() {
	if r.fd < 0 {
		return // stopped
	}
	oob := make([]byte, 128)
	for {
		n, noob, _, _, err := unix.Recvmsg(r.fd, r.buf, oob, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
			continue
		}
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				r.tb.Errorf("read recorded packet: %v", err)
			}
			return
		}
		r.add(r.buf[:n], checksumPending(oob[:noob]))
	}
}

func (r *Recorder) add(frame []byte, partial bool) {
	a, d, ok := parseArrival(frame, partial)
	if !ok {
		return
	}
	if !d.whole {
		key := fragmentOf{d.src, d.dst, d.fragmentID}
		if d.first {
			r.flows[key] = a
		} else if first, ok := r.flows[key]; ok {
			a.Src, a.Dst, a.Protocol = first.Src, first.Dst, first.Protocol
		}
	}
	seen := r.seen[a]
	seen.Packets++
	seen.Largest = max(seen.Largest, len(frame))
	r.seen[a] = seen
}

// checksumPending reads from a message's control data whether the checksum is
// left to the device (TP_STATUS_CSUMNOTREADY).
func checksumPending(oob []byte) bool {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 4 {
			return binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY != 0
		}
	}
	return false
}

// Stop ends the recording. What was recorded can still be taken.
func (r *Recorder) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return
	}
	r.drain()
	_ = unix.Close(r.fd)
	r.fd = -1
}

// Largest returns the length of the largest frame that arrived with a port in
// [lo, hi) and was not taken yet.
func (r *Recorder) Largest(lo, hi uint16) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drain()
	largest := 0
	for a, seen := range r.seen {
		if a.HasPort(lo, hi) {
			largest = max(largest, seen.Largest)
		}
	}
	return largest
}
