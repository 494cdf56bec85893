// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"errors"
	"net"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// sockopt sets something on a socket.
type sockopt func(fd int, v6 bool) error

// option returns the socket option of each family with a number as its value.
func option(level4, name4, level6, name6, value int) sockopt {
	return func(fd int, v6 bool) error {
		if v6 {
			return unix.SetsockoptInt(fd, level6, name6, value)
		}
		return unix.SetsockoptInt(fd, level4, name4, value)
	}
}

func ttlOption(ttl int) sockopt {
	return option(unix.SOL_IP, unix.IP_TTL, unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
}

func tosOption(tos int) sockopt {
	return option(unix.SOL_IP, unix.IP_TOS, unix.SOL_IPV6, unix.IPV6_TCLASS, tos)
}

// mtuOption says how a socket meets a smaller MTU: IP_PMTUDISC_DO and the like.
func mtuOption(discover int) sockopt {
	return option(unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, discover)
}

func controlled(opts []sockopt) func(network, address string, raw syscall.RawConn) error {
	return func(network, _ string, raw syscall.RawConn) error {
		v6 := strings.HasSuffix(network, "6")
		opts = append([]sockopt{
			option(unix.SOL_SOCKET, unix.SO_REUSEADDR, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		}, opts...)
		return withFD(raw, func(fd int) error {
			for _, opt := range opts {
				if err := opt(fd, v6); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func withFD(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	return errors.Join(raw.Control(func(fd uintptr) { err = f(int(fd)) }), err)
}

// setOptions changes a socket that is open.
func setOptions(conn net.Conn, opts ...sockopt) error {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	v6 := strings.Contains(conn.LocalAddr().String(), "[")
	return withFD(raw, func(fd int) error {
		for _, opt := range opts {
			if err := opt(fd, v6); err != nil {
				return err
			}
		}
		return nil
	})
}

func bytesOption(level, name int, value []byte) sockopt {
	return func(fd int, _ bool) error { return unix.SetsockoptString(fd, level, name, string(value)) }
}

func noChecksum(fd int, v6 bool) error {
	if !v6 {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	}
	return errors.Join(unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_NO_CHECK6_TX, 1),
		unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_NO_CHECK6_RX, 1))
}
