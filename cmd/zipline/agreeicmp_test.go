// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// icmpCases are messages of ICMP, on their own and about flows that eBPF carries.
func icmpCases() []agreeCase {
	echoWays := []way{
		toNeighbour, toOther, toOutside, toNode, fromNode,
		{name: "to the outside with an egress address", client: "e", server: "outside"},
		{name: "from the outside by route", client: "peer", server: "a"},
	}
	return slices.Concat(
		perWay(agreeCase{name: "icmp echo"}, echoWays, func(c *agreeRun, l flow) {
			for _, size := range []int{8, 1400, 4000} {
				c.echoRequest(l, size)
			}
		}),
		perWay(agreeCase{name: "a closed port answers by an error to a first datagram"}, natWays, func(c *agreeRun, l flow) {
			c.wantRefused(l, l.mustDial("udp"))
		}),
		perWay(agreeCase{name: "a port that closes answers by an error to an established flow"}, natWays, func(c *agreeRun, l flow) {
			server := l.serveUDP()
			conn := l.mustDial("udp")
			l.exchangeAll(conn, 40, 100)
			if err := server.Close(); err != nil {
				c.t.Fatal(err)
			}
			c.wantRefused(l, conn)
		}),
		perWay(agreeCase{name: "a client that closes answers by an error to a server's datagram"}, natWays, func(c *agreeRun, l flow) {
			server := l.serveUDP()
			conn := l.mustDial("udp")
			l.exchangeAll(conn, 40, 100)
			_ = conn.Close()
			c.clientGone(l, server)
		}),
		perWay(agreeCase{name: "a route is traced"}, []way{toOther, toFar, toService}, (*agreeRun).traceRoute),
		perWay(agreeCase{name: "a route is traced"}, []way{toNeighbour}, (*agreeRun).traceNeighbour),
		perWay(agreeCase{name: "a TTL that ends in an established flow is told"}, []way{toOther, toFar, toService}, (*agreeRun).expireEstablished),
		perFamily(agreeCase{name: "an address that nobody has is unreachable"}, func(c *agreeRun, f family) {
			l := c.open(toNeighbour, f)
			l.to = netip.AddrPortFrom(byFamily("10.78.200.200", "fd00:78::200:200")[f.name], l.to.Port())
			conn := l.mustDial("udp")
			// The kernel has a limit of its own for these errors.
			for deadline := time.Now().Add(testrig.Timeout); len(c.errorsAbout(l)) == 0; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					c.errorf("no error")
					return
				}
				_ = writeAgain(conn, []byte("anybody there?"))
			}
		}),
	)
}

// echoRequest sends an ICMP echo request and waits for the answer.
func (c *agreeRun) echoRequest(l flow, size int) {
	c.t.Helper()
	message := make([]byte, 8, 8+size)
	message[0] = 8
	protocol := unix.IPPROTO_ICMP
	if l.to.Addr().Is6() {
		message[0], protocol = 128, unix.IPPROTO_ICMPV6
	}
	binary.BigEndian.PutUint16(message[4:], l.from.Port())
	message = append(message, c.payload(size, 1)...)
	if protocol == unix.IPPROTO_ICMP {
		binary.BigEndian.PutUint16(message[2:], testrig.Checksum(message))
	}
	c.sendRaw(l, protocol, message)
	c.await(l.clientEnd(), "an answer", func(a testrig.Arrival) bool {
		return a.Src.Addr() == l.to.Addr() && a.Length >= min(size, 1000)
	})
}

// wantRefused sends datagrams until the socket is told that nobody listens.
func (c *agreeRun) wantRefused(l flow, conn net.Conn) {
	c.t.Helper()
	buf := make([]byte, 10)
	for deadline := time.Now().Add(testrig.Timeout); time.Now().Before(deadline); {
		_, err := conn.Write([]byte("closed?"))
		if err == nil {
			if err = conn.SetReadDeadline(time.Now().Add(testrig.Timeout / 4)); err == nil {
				_, err = conn.Read(buf)
			}
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			return
		}
	}
	c.errorf("%s > %s: no error from the closed port", l.from, l.to)
}

// clientGone lets the server speak on a flow whose client is gone, until the error
// comes back.
func (c *agreeRun) clientGone(l flow, server net.PacketConn) {
	c.t.Helper()
	var peer net.Addr
	l.server.record.Has(func(a testrig.Arrival) bool {
		if a.Dst == l.listen && a.Protocol == unix.IPPROTO_UDP {
			peer = net.UDPAddrFromAddrPort(a.Src)
		}
		return peer != nil
	})
	if peer == nil {
		c.errorf("the server saw no datagram")
		return
	}
	for range 4 {
		if _, err := server.WriteTo([]byte("gone?"), peer); err == nil {
			break
		}
	}
	c.await(l.server.name, "an error about its datagram", func(a testrig.Arrival) bool { return a.Quoted.Src == l.listen })
}

// traceRoute sends datagrams with rising TTL until the closed port answers.
func (c *agreeRun) traceRoute(l flow) {
	conn := l.mustDial("udp")
	for ttl := 1; ttl <= 6; ttl++ {
		before := c.errorsAbout(l)
		if err := errors.Join(setOptions(conn, ttlOption(ttl)), writeAgain(conn, c.payload(20, ttl))); err != nil {
			c.t.Fatal(err)
		}
		for deadline := time.Now().Add(testrig.Timeout); len(c.errorsAbout(l)) == len(before); time.Sleep(2 * time.Millisecond) {
			if time.Now().After(deadline) {
				c.errorf("no error about TTL %d", ttl)
				return
			}
		}
		for _, a := range c.errorsAbout(l) {
			if a.Src.Addr() == l.to.Addr() {
				c.note("%s is %d hops away", l.to, ttl)
				return
			}
		}
	}
	c.errorf("%s is more than 6 hops away", l.to)
}

// traceNeighbour is a way that tiers differ in, too far for a list of packets:
// direct shows no router between neighbours.
func (c *agreeRun) traceNeighbour(l flow) {
	c.traceRoute(l)
	hops := 2
	if c.v == directTier {
		hops = 1
	}
	if want := fmt.Sprintf("%s is %d hops away", l.to, hops); len(c.notes) != 1 || c.notes[0] != want {
		c.errorf("%q; want %q", c.notes, want)
	}
	c.notes = nil
	c.take(c.port, c.port+portsPerCase)
}

// errorsAbout returns the ICMP errors that the client got about its packets.
func (c *agreeRun) errorsAbout(l flow) []testrig.Arrival {
	var found []testrig.Arrival
	c.hosts[l.clientEnd()].record.Has(func(a testrig.Arrival) bool {
		if a.Quoted.Dst == l.to {
			found = append(found, a)
		}
		return false
	})
	return found
}

// expireEstablished lets single packets of a flow that eBPF carries run out of
// hops: the stack has to take them, and the next one not.
func (c *agreeRun) expireEstablished(l flow) {
	l.serveUDP()
	conn := l.mustDial("udp")
	l.exchangeAll(conn, 20, 100)
	if err := errors.Join(setOptions(conn, ttlOption(1)), writeAgain(conn, c.payload(33, 0))); err != nil {
		c.t.Fatal(err)
	}
	c.await(l.clientEnd(), "an error about TTL 1", func(a testrig.Arrival) bool { return a.Quoted.Dst == l.to })
	if err := setOptions(conn, ttlOption(64)); err != nil {
		c.t.Fatal(err)
	}
	l.exchangeAll(conn, 20, 100)
}

// writeAgain writes a datagram; an ICMP error to an earlier one is told to a later
// call.
func writeAgain(conn net.Conn, data []byte) error {
	var err error
	for range 3 {
		if _, err = conn.Write(data); err == nil {
			return nil
		}
	}
	return err
}
