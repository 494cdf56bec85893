// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// queue is the receiver's buffer. Where both ends share a CPU the sender has
	// it for some milliseconds before the receiver gets its turn, and nothing is
	// to be lost for that: it holds about 10,000 datagrams of either size.
	queue = 32 << 20
	// quiet is how long nothing comes when the sender has stopped.
	quiet = 20 * time.Millisecond
	// numberSize is of the number that every datagram begins with.
	numberSize = 8
)

// flood sends datagrams over the connections in turn until the receiver says a
// word.
func (e End) flood(g *group) error {
	if e.Size < numberSize {
		return fmt.Errorf("datagrams of %d bytes have no place for a number", e.Size)
	}
	b := newBatch(e.Size, false)
	word := make([]byte, 1)
	begun := time.Now()
	number := uint64(0)
	for i := 0; ; i = (i + 1) % len(g.fds) {
		_, err := receive(g.fds[i], word, unix.MSG_DONTWAIT)
		if err == nil || closed(err) {
			return nil
		}
		if err != unix.EAGAIN {
			return err
		}
		for j := range batchSize {
			binary.LittleEndian.PutUint64(b.payload(j), number+uint64(j))
		}
		n, err := b.send(g.fds[i])
		if closed(err) {
			return nil
		}
		if err != nil {
			return err
		}
		number += uint64(n)
		if time.Since(begun) > e.Warmup+e.Duration+2*patience {
			return errSilent
		}
	}
}

// gatherer receives what a flood sends.
type gatherer struct {
	*meter
	*batch
	peers
	fd int
	// next is one more than the greatest number so far.
	next uint64
	last *name
}

// gather counts the datagrams that come to a socket.
func (e End) gather(fd int) (Measurement, peers, error) {
	g := &gatherer{meter: newMeter(), batch: newBatch(max(e.Size, numberSize), true), fd: fd}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue); err != nil {
		return Measurement{}, g.peers, fmt.Errorf("enlarge receive buffer: %w", err)
	}
	if _, err := g.step(); err != nil { // which waits for the first one
		return Measurement{}, g.peers, err
	}
	found, err := g.measure(e, g.step)
	if err != nil {
		return found, g.peers, err
	}
	found.Lost = found.Sent - min(found.Units, found.Sent)
	n, err := g.stop()
	found.Total += n
	return found, g.peers, err
}

// step takes the datagrams that have come and returns how many. What was sent is
// known by their numbers.
func (g *gatherer) step() (uint64, error) {
	n, err := g.batch.receive(g.fd)
	if err == unix.EAGAIN {
		err = errSilent
	}
	if err != nil {
		return 0, err
	}
	g.read()
	for i := range n {
		if got := int(g.headers[i].size); got != g.size {
			return 0, fmt.Errorf("datagram has %d bytes, not %d", got, g.size)
		}
		if err := g.see(&g.names[i]); err != nil {
			return 0, err
		}
		if next := binary.LittleEndian.Uint64(g.payload(i)) + 1; next > g.next {
			g.sent += next - g.next
			g.next = next
		}
	}
	g.last = &g.names[n-1]
	return uint64(n), nil
}

// stop tells the sender, until it has heard it, and returns what came meanwhile.
func (g *gatherer) stop() (total uint64, err error) {
	if err := setTimeout(g.fd, unix.SO_RCVTIMEO, quiet); err != nil {
		return 0, fmt.Errorf("set up socket: %w", err)
	}
	for until := g.now + patience; g.now < until; {
		if _, err := sendTo(g.fd, []byte{goodbye}, 0, g.last); err != nil {
			return total, fmt.Errorf("stop sender: %w", err)
		}
		n, err := g.step()
		if err == errSilent {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, fmt.Errorf("sender does not stop")
}
