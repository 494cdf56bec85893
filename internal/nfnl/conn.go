// SPDX-License-Identifier: Apache-2.0

package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	headerLen = 16 // struct nlmsghdr
	align     = 4
	// bufferLen holds the largest datagram of a dump (the kernel fills at most
	// 32 KiB at a time).
	bufferLen = 64 << 10
	// sendBuffer is less than the default buffer takes (212,992 bytes minus
	// overhead).
	sendBuffer = 64 << 10
)

// ErrInterrupted says that what was listed changed during the listing.
var ErrInterrupted = errors.New("listing interrupted by a change")

// Error is an error that the kernel reports of one message. It unwraps to the
// errno.
type Error struct {
	Sequence uint32 // of the message
	Errno    unix.Errno
}

// Error implements error.
func (e *Error) Error() string { return e.Errno.Error() }

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// Conn is a netlink socket in the network namespace that the opening thread was
// in. It must not be used by two goroutines at once.
type Conn struct {
	fd       int
	sequence uint32
	room     int    // what the send buffer takes for sure, in bytes
	buffer   []byte // of the last datagram
	rest     []byte // of it, not yet returned
}

// Open opens a socket. The caller must Close it; see the package comment for
// when.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	// Error messages need not repeat the message at fault.
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set up netfilter socket: %w", err)
	}
	return &Conn{fd: fd, room: sendBuffer}, nil
}

// Close closes the socket. It may wait for the kernel: see the package comment.
func (c *Conn) Close() error {
	if err := unix.Close(c.fd); err != nil {
		return fmt.Errorf("close netfilter socket: %w", err)
	}
	return nil
}

// Send sends messages as one datagram, numbers them and returns the first's
// sequence number; the others follow without a gap.
func (c *Conn) Send(messages ...netlink.Message) (first uint32, err error) {
	first = c.sequence + 1
	var out []byte
	for _, m := range messages {
		c.sequence++
		out = binary.NativeEndian.AppendUint32(out, uint32(headerLen+len(m.Data)))
		out = binary.NativeEndian.AppendUint16(out, uint16(m.Header.Type))
		out = binary.NativeEndian.AppendUint16(out, uint16(m.Header.Flags))
		out = binary.NativeEndian.AppendUint32(out, c.sequence)
		out = binary.NativeEndian.AppendUint32(out, 0) // port: the kernel knows
		out = append(out, m.Data...)
		out = append(out, make([]byte, aligned(len(out))-len(out))...)
	}
	if err := c.makeRoom(len(out)); err != nil {
		return 0, err
	}
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("write netfilter socket: %w", err)
	}
	return first, nil
}

// makeRoom widens the send buffer for a datagram of this size. The kernel
// accounts more than the payload. It needs CAP_NET_ADMIN, as netfilter does.
func (c *Conn) makeRoom(size int) error {
	if size <= c.room {
		return nil
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*size); err != nil {
		return fmt.Errorf("widen netfilter socket for %d bytes: %w", size, err)
	}
	c.room = size
	return nil
}

// Receive returns the next message that belongs to the exchange that began with
// sequence number first, and skips what an earlier one left behind. An error
// that the kernel reports is an *Error, an acknowledgement a message of type
// [netlink.Error].
func (c *Conn) Receive(first uint32) (netlink.Message, error) {
	for {
		m, err := c.next()
		if err != nil {
			return m, err
		}
		if m.Header.Sequence-first > 1<<31 {
			continue
		}
		if m.Header.Type != netlink.Error && m.Header.Type != netlink.Done || len(m.Data) < 4 {
			return m, nil
		}
		if code := int32(binary.NativeEndian.Uint32(m.Data)); code < 0 {
			return m, &Error{m.Header.Sequence, unix.Errno(-code)}
		}
		return m, nil
	}
}

// Dump sends a request for all objects of a kind and calls f for each. It
// returns ErrInterrupted, after all calls, when the kernel says that the objects
// changed meanwhile.
func (c *Conn) Dump(request netlink.Message, f func(netlink.Message) error) error {
	request.Header.Flags |= netlink.Request | netlink.Dump
	first, err := c.Send(request)
	if err != nil {
		return err
	}
	var interrupted, failed error
	for {
		m, err := c.Receive(first)
		if err != nil {
			return err
		}
		if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
			interrupted = ErrInterrupted
		}
		if m.Header.Type == netlink.Done {
			return errors.Join(failed, interrupted)
		}
		// The rest must be read in any case: the next request would be
		// refused while a dump is under way.
		if failed == nil {
			failed = f(m)
		}
	}
}

// next returns one message, of the last datagram or a new one.
func (c *Conn) next() (netlink.Message, error) {
	if len(c.rest) < headerLen {
		if err := c.read(); err != nil {
			return netlink.Message{}, err
		}
	}
	size := int(binary.NativeEndian.Uint32(c.rest))
	if size < headerLen || size > len(c.rest) {
		c.rest = nil
		return netlink.Message{}, fmt.Errorf("read netfilter socket: message of %d bytes", size)
	}
	m := netlink.Message{Header: netlink.Header{
		Length:   uint32(size),
		Type:     netlink.HeaderType(binary.NativeEndian.Uint16(c.rest[4:])),
		Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(c.rest[6:])),
		Sequence: binary.NativeEndian.Uint32(c.rest[8:]),
		PID:      binary.NativeEndian.Uint32(c.rest[12:]),
	}}
	m.Data = append(m.Data, c.rest[headerLen:size]...) // the buffer is used again
	c.rest = c.rest[min(aligned(size), len(c.rest)):]
	return m, nil
}

func (c *Conn) read() error {
	if c.buffer == nil {
		c.buffer = make([]byte, bufferLen)
	}
	for {
		n, _, flags, _, err := unix.Recvmsg(c.fd, c.buffer, nil, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("read netfilter socket: %w", err)
		case flags&unix.MSG_TRUNC != 0 || n < headerLen:
			return fmt.Errorf("read netfilter socket: datagram of %d bytes: %w", n, unix.EMSGSIZE)
		}
		c.rest = c.buffer[:n]
		return nil
	}
}

func aligned(n int) int { return (n + align - 1) &^ (align - 1) }
