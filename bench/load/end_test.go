// SPDX-License-Identifier: Apache-2.0

package load

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEndRefusesWhatItCannotDo(t *testing.T) {
	for name, e := range map[string]End{
		"no such role":  {Role: "dance", Network: "tcp", Connections: 1},
		"no connection": {Role: Ping, Network: "tcp"},
		"no such CPU":   {Role: Receive, Network: "udp", Connections: 1, CPU: 9999},
	} {
		if _, err := e.Connect(netip.MustParseAddrPort("127.0.0.1:9")); err == nil && e.CPU == 0 {
			t.Errorf("%s: client has done something", name)
		}
		listener, _, err := Listen("udp", netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := e.Serve(listener); err == nil {
			t.Errorf("%s: server has done something", name)
		}
		if err := unix.Close(listener); err == nil {
			t.Errorf("%s: server has left its socket", name)
		}
	}
}

// A server is told whom it has been reached from, and by two it is not.
func TestServerWantsOnePeer(t *testing.T) {
	for _, c := range []struct {
		role    Role
		network string
		send    func(from netip.Addr, to netip.AddrPort) (int, error)
	}{
		{Echo, "tcp", connectFrom}, {Answer, "tcp", connectFrom}, {Echo, "udp", sendFrom}, {Receive, "udp", sendFrom},
	} {
		listener, at, err := Listen(c.network, netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
			fd, err := c.send(netip.MustParseAddr(from), at)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Close(fd) }()
		}
		e := End{Role: c.role, Network: c.network, Connections: 2, Size: 8, CPU: AnyCPU, Duration: time.Second}
		err = inNamespace(func() error {
			_, _, err := e.Serve(listener)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "reached from 127.0.0.2 and from 127.0.0.3") {
			t.Errorf("%s over %s was reached from two addresses: %v", c.role, c.network, err)
		}
	}
}

func connectFrom(from netip.Addr, to netip.AddrPort) (int, error) {
	return socketFrom("tcp", from, to)
}

func sendFrom(from netip.Addr, to netip.AddrPort) (int, error) {
	fd, err := socketFrom("udp", from, to)
	if err == nil {
		_, err = unix.Write(fd, make([]byte, 8))
	}
	return fd, err
}

func socketFrom(network string, from netip.Addr, to netip.AddrPort) (int, error) {
	fd, err := newSocket(network, from)
	if err == nil {
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0)))
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	return fd, err
}
