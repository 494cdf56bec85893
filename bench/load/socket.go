// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long anything waits for its peer: a path that has broken must
// not hold up a run for ever.
const patience = 5 * time.Second

// backlog is how many peers may wait to be accepted.
const backlog = 1024

// InNamespace calls f on a thread of its own in the network namespace at path.
// The thread ends with the call.
func InNamespace(path string, f func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread must not serve others in that namespace.
		runtime.LockOSThread()
		result <- func() error {
			file, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("enter namespace: %w", err)
			}
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			_ = file.Close()
			if err != nil {
				return fmt.Errorf("enter namespace %s: %w", path, err)
			}
			return f()
		}()
	}()
	return <-result
}

// Listen returns a socket that waits for peers, and its address: port 0 picks
// one.
func Listen(network string, at netip.AddrPort) (fd int, addr netip.AddrPort, err error) {
	if fd, err = newSocket(network, at.Addr()); err != nil {
		return -1, addr, fmt.Errorf("listen at %s: %w", at, err)
	}
	if network == "tcp" { // a port that is given has served others before
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(at))
	}
	if err == nil && network == "tcp" {
		err = unix.Listen(fd, backlog)
	}
	if err == nil {
		var name unix.Sockaddr
		name, err = unix.Getsockname(fd)
		addr = addrPort(name)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, addr, fmt.Errorf("listen at %s: %w", at, err)
	}
	return fd, addr, nil
}

// acceptAll waits for so many peers and returns the sockets that are connected to
// them. They have the options of the listening socket.
func acceptAll(listener, n int) (fds []int, found peers, err error) {
	for len(fds) < n {
		fd, from, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err == nil {
			fds = append(fds, fd)
			err = found.see(newName(addrPort(from)))
		}
		if err != nil {
			closeAll(fds)
			if err == unix.EAGAIN {
				err = errSilent
			}
			return nil, found, fmt.Errorf("wait for peer: %w", err)
		}
	}
	return fds, found, nil
}

// connect returns so many sockets that are connected to an address.
func connect(network string, to netip.AddrPort, n int) (fds []int, err error) {
	for len(fds) < n {
		fd, err := newSocket(network, to.Addr())
		if err == nil {
			fds = append(fds, fd)
			err = unix.Connect(fd, sockaddr(to))
		}
		if err != nil {
			closeAll(fds)
			if err == unix.EINPROGRESS { // still
				err = errSilent
			}
			return nil, fmt.Errorf("connect to %s: %w", to, err)
		}
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func newSocket(network string, addr netip.Addr) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if addr.Is6() {
		family = unix.AF_INET6
	}
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if err := prepare(fd, network); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// prepare sets what every socket needs.
func prepare(fd int, network string) error {
	err := errors.Join(setTimeout(fd, unix.SO_RCVTIMEO, patience), setTimeout(fd, unix.SO_SNDTIMEO, patience))
	if network == "tcp" {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	}
	if err != nil {
		return fmt.Errorf("set up socket: %w", err)
	}
	return nil
}

func setTimeout(fd, option int, timeout time.Duration) error {
	tv := unix.NsecToTimeval(int64(timeout))
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &tv)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}
