// SPDX-License-Identifier: Apache-2.0

package load

import (
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of an end, which the Go scheduler learns nothing of.

// name is a socket's address as the kernel reads and writes it. The one of IPv4 is
// the shorter one.
type name struct {
	raw  unix.RawSockaddrInet6
	size uint32
}

func newName(a netip.AddrPort) *name {
	n := &name{}
	if a.Addr().Is4() {
		v4 := n.inet4()
		v4.Family, v4.Addr, n.size = unix.AF_INET, a.Addr().As4(), unix.SizeofSockaddrInet4
	} else {
		n.raw.Family, n.raw.Addr, n.size = unix.AF_INET6, a.Addr().As16(), unix.SizeofSockaddrInet6
	}
	port := (*[2]byte)(unsafe.Pointer(&n.raw.Port)) // at the same place in both
	port[0], port[1] = byte(a.Port()>>8), byte(a.Port())
	return n
}

func (n *name) inet4() *unix.RawSockaddrInet4 {
	return (*unix.RawSockaddrInet4)(unsafe.Pointer(&n.raw))
}

func (n *name) addr() netip.Addr {
	if n.raw.Family == unix.AF_INET {
		return netip.AddrFrom4(n.inet4().Addr)
	}
	return netip.AddrFrom16(n.raw.Addr)
}

// raw makes a system call, again if a signal has ended it. What its arguments
// point to is on the heap, which does not move.
//
//go:uintptrescapes
func raw(call uintptr, args ...uintptr) (int, error) {
	var a [6]uintptr
	copy(a[:], args)
	for {
		n, _, errno := syscall.RawSyscall6(call, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

func read(fd int, buf []byte) (int, error) { return receive(fd, buf, 0) }

func receive(fd int, buf []byte, flags int) (int, error) {
	return receiveFrom(fd, buf, flags, nil)
}

// receiveFrom also says who has sent it, if from is not nil.
func receiveFrom(fd int, buf []byte, flags int, from *name) (int, error) {
	var at, size unsafe.Pointer
	if from != nil {
		from.size = unix.SizeofSockaddrInet6
		at, size = unsafe.Pointer(&from.raw), unsafe.Pointer(&from.size)
	}
	n, err := raw(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)),
		uintptr(flags), uintptr(at), uintptr(size))
	return n, err
}

func write(fd int, buf []byte, flags int) (int, error) { return sendTo(fd, buf, flags, nil) }

// sendTo sends to a peer, or to the one that the socket is connected to.
func sendTo(fd int, buf []byte, flags int, to *name) (int, error) {
	var at unsafe.Pointer
	var size uint32
	if to != nil {
		at, size = unsafe.Pointer(&to.raw), to.size
	}
	n, err := raw(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)),
		uintptr(flags|unix.MSG_NOSIGNAL), uintptr(at), uintptr(size))
	return n, err
}

// accept takes a connection, if there is one.
func accept(listener int, from *name) (int, error) {
	from.size = unix.SizeofSockaddrInet6
	fd, err := raw(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&from.raw)), uintptr(unsafe.Pointer(&from.size)),
		unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	return fd, err
}

// dial begins a connection and does not wait for it.
func dial(to *name) (int, error) {
	fd, err := raw(unix.SYS_SOCKET, uintptr(to.raw.Family), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	_, err = raw(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size))
	if err != nil && err != unix.EINPROGRESS {
		hangUp(fd)
		return -1, err
	}
	return fd, nil
}

func hangUp(fd int) { _, _ = raw(unix.SYS_CLOSE, uintptr(fd)) }

// poller waits for many sockets.
type poller struct {
	fd     int
	events [64]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &poller{fd: fd}, err
}

// add makes wait report a socket's events by a key. It is forgotten when it is
// closed.
func (p *poller) add(fd, key int, events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: int32(key)}
	_, err := raw(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&event)))
	return err
}

// wait returns events, whose Fd is a key. There are none after so long a time.
func (p *poller) wait(limit time.Duration) ([]unix.EpollEvent, error) {
	n, err := raw(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)),
		uintptr(limit.Milliseconds()), 0, 0)
	return p.events[:n], err
}

func (p *poller) close() { _ = unix.Close(p.fd) }

// batch is datagrams that go through the kernel's doors together. Each of them
// takes its own way behind them: a batch saves the doors, not the way.
type batch struct {
	headers [batchSize]struct {
		unix.Msghdr
		size uint32
	}
	parts [batchSize]unix.Iovec
	names [batchSize]name
	data  []byte
	size  int
}

// batchSize is how many: enough for the doors to be a small part of all.
const batchSize = 32

// newBatch returns a batch of datagrams with so many bytes. If named, it is for
// receive, and says whom they are from.
func newBatch(size int, named bool) *batch {
	b := &batch{data: make([]byte, batchSize*size), size: size}
	for i := range b.headers {
		b.parts[i].Base = &b.payload(i)[0]
		b.parts[i].SetLen(size)
		b.headers[i].Iov = &b.parts[i]
		b.headers[i].SetIovlen(1)
		if named {
			b.headers[i].Name = (*byte)(unsafe.Pointer(&b.names[i].raw))
		}
	}
	return b
}

func (b *batch) payload(i int) []byte { return b.data[i*b.size : (i+1)*b.size] }

// send returns how many have been sent.
func (b *batch) send(fd int) (int, error) {
	return raw(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers)), batchSize, unix.MSG_NOSIGNAL)
}

// receive waits for one and returns how many there are.
func (b *batch) receive(fd int) (int, error) {
	for i := range b.headers {
		b.headers[i].Namelen = unix.SizeofSockaddrInet6
	}
	n, err := raw(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers)), batchSize, unix.MSG_WAITFORONE, 0)
	for i := range n {
		b.names[i].size = b.headers[i].Namelen
	}
	return n, err
}
