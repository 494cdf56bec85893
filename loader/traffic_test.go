// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
)

var sites = map[string]Site{"tcx": {}, "clsact": {ForceClsact: true}}

// The node's stack has no address, no route and no forwarding: whatever arrives
// was carried by the program.
func TestNeighboursTalkThroughTheProgramAlone(t *testing.T) {
	for hook, site := range sites {
		for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
			t.Run(hook+" "+network, func(t *testing.T) {
				enterNode(t)
				a := newContainer(t, 1, "10.1.0.1/24", "fd00:1::1/64")
				b := newContainer(t, 2, "10.1.0.2/24", "fd00:1::2/64")
				node := a.publish(t, site)
				b.publish(t, site)
				must(t, echo(a, b, network, 1<<20))
				wantCount(t, node, bpf.ZiplineReasonREASON_DIRECT, 4)
				if network[3] == '4' {
					wantCount(t, node, bpf.ZiplineReasonREASON_ARP_REPLY, 1)
				} else {
					wantCount(t, node, bpf.ZiplineReasonREASON_ND_REPLY, 1)
				}
			})
		}
	}
}

// echo sends size bytes (UDP: a few datagrams) from one container to another
// and back again.
func echo(from, to *container, network string, size int) error {
	prefix := to.prefixes[0]
	if network[3] == '6' {
		prefix = to.prefixes[1]
	}
	serve, talk := echoTCP, talkTCP
	if network[:3] == "udp" {
		serve, talk = echoUDP, talkUDP
	}
	addr := netip.AddrPortFrom(prefix.Addr(), 7)
	var stop io.Closer
	err := to.do(func() (err error) {
		stop, err = serve(network, addr)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = stop.Close() }()
	return from.do(func() error { return talk(network, addr, size) })
}

func echoTCP(network string, addr netip.AddrPort) (io.Closer, error) {
	l, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn) // the client notices what is missing
				_ = conn.Close()
			}()
		}
	}()
	return l, nil
}

func talkTCP(network string, addr netip.AddrPort, size int) error {
	conn, err := net.DialTimeout(network, addr.String(), testrig.Timeout)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	go func() { _, _ = conn.Write(make([]byte, size)) }() // the reader notices what is missing
	_, err = io.CopyN(io.Discard, conn, int64(size))
	return err
}

func echoUDP(network string, addr netip.AddrPort) (io.Closer, error) {
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(buf[:n], from) // the client notices what is missing
		}
	}()
	return conn, nil
}

func talkUDP(network string, addr netip.AddrPort, _ int) error {
	conn, err := net.Dial(network, addr.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for i := range 4 {
		if err := conn.SetDeadline(time.Now().Add(testrig.Timeout)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(conn, "datagram %d", i); err != nil {
			return err
		}
		if _, err := conn.Read(make([]byte, 100)); err != nil {
			return err
		}
	}
	return nil
}

func count(tb testing.TB, n *Node, reason bpf.Reason) uint64 {
	tb.Helper()
	counters, err := n.Counters()
	must(tb, err)
	for _, c := range counters {
		if c.Hook == bpf.HookEndpoint && c.Reason == reason {
			return c.Packets
		}
	}
	return 0
}

// wantCount fails the test unless at least so many packets were counted.
func wantCount(tb testing.TB, n *Node, reason bpf.Reason, least uint64) {
	tb.Helper()
	if have := count(tb, n, reason); have < least {
		counters, _ := n.Counters()
		tb.Errorf("%d packets counted as %q, want at least %d; all: %v", have, reason, least, counters)
	}
}
