// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// perFamily makes a case for each family.
func perFamily(c agreeCase, run func(c *agreeRun, f family)) []agreeCase {
	var cases []agreeCase
	for _, f := range families {
		each := c
		each.name, each.family = f.name+" "+c.name, f.name
		each.run = func(c *agreeRun) { run(c, f) }
		cases = append(cases, each)
	}
	return cases
}

// perWay makes a case for each family and each of the ways.
func perWay(c agreeCase, ways []way, run func(c *agreeRun, l flow)) []agreeCase {
	var cases []agreeCase
	for _, w := range ways {
		each := c
		each.name, each.neighbours, each.way = c.name+" "+w.name, w.neighbours, w
		if each.fast == fastOfWay {
			each.fast = w.fast
		}
		cases = append(cases, perFamily(each, func(c *agreeRun, f family) { run(c, c.open(w, f)) })...)
	}
	return cases
}

// flowCases are an ordinary connection and an ordinary exchange of datagrams, each
// way there is.
func flowCases() []agreeCase {
	return slices.Concat(
		perWay(agreeCase{name: "tcp", fast: fastOfWay}, allWays, func(c *agreeRun, l flow) { l.talkTCP(30, 1<<18) }),
		perWay(agreeCase{name: "udp", fast: fastOfWay}, allWays, func(c *agreeRun, l flow) {
			l.serveUDP()
			l.exchangeAll(l.mustDial("udp"), 15, 1, 512, 1452)
		}),
	)
}

// talkTCP makes a connection with small round trips and a large one.
func (l flow) talkTCP(rounds, bulk int, opts ...sockopt) {
	l.c.t.Helper()
	done := l.serveTCP(echo, opts...)
	conn := l.mustDial("tcp", opts...)
	for i := range rounds {
		if err := roundTrip(conn, l.c.payload(1+i*50, i)); err != nil {
			l.c.errorf("%s > %s: round trip %d: %v", l.from, l.to, i, err)
			return
		}
	}
	if err := roundTrip(conn, l.c.payload(bulk, rounds)); err != nil {
		l.c.errorf("%s > %s: round trip of %d bytes: %v", l.from, l.to, bulk, err)
		return
	}
	l.finish(conn, done)
}

// sizeCases are packets as small and as large as they come.
func sizeCases() []agreeCase {
	return slices.Concat(
		perWay(agreeCase{name: "empty datagrams", fast: fastOfWay}, []way{toOutside, toService}, func(c *agreeRun, l flow) {
			l.serveUDP()
			l.exchangeAll(l.mustDial("udp"), 20, 0)
		}),
		perWay(agreeCase{name: "datagrams of exactly the MTU", fast: fastOfWay}, natWays, func(c *agreeRun, l flow) {
			l.serveUDP(mtuOption(unix.IP_PMTUDISC_DO))
			l.exchangeAll(l.mustDial("udp", mtuOption(unix.IP_PMTUDISC_DO)), 20, 1500-l.f.headers)
		}),
		perWay(agreeCase{name: "datagrams over the MTU"}, natWays, func(c *agreeRun, l flow) {
			l.serveUDP()
			conn := l.mustDial("udp")
			// A flow that is carried past the stack has to go on when one of its
			// datagrams needs fragments, and the other way round.
			for range 5 {
				l.exchangeAll(conn, 4, 100, 1500, 8000)
			}
			l.exchangeAll(conn, 1, 60000)
		}),
		perWay(agreeCase{name: "trains of datagrams (UDP GSO)", fast: fastOfWay}, natWays, (*agreeRun).datagramTrains),
		perWay(agreeCase{name: "bulk", fast: fastOfWay}, natWays, func(c *agreeRun, l flow) { l.talkTCP(3, 4<<20) }),
		// Stacks that forward cannot carry those of IPv6.
		ofFamily("IPv4", perWay(agreeCase{name: "bulk in big packets (BIG TCP)", fast: fastOfWay}, []way{
			{name: "to a neighbour", client: "g", server: "h", fast: fastDirect, neighbours: true},
			{name: "to a service on a neighbour", client: "g", server: "h", fast: fastTracked, via: serviceAddr},
		}, (*agreeRun).bigPackets)),
		perWay(agreeCase{name: "tcp without checksum offload", fast: fastOfWay}, natWays, func(c *agreeRun, l flow) {
			defer c.withoutOffload(l)()
			l.talkTCP(30, 1<<19)
		}),
		perWay(agreeCase{name: "tcp that the uplink joins (GRO)", fast: fastOfWay}, []way{toOutside, fromOutside}, (*agreeRun).joinedOnArrival),
		perWay(agreeCase{name: "udp without checksum offload", fast: fastOfWay}, natWays, func(c *agreeRun, l flow) {
			defer c.withoutOffload(l)()
			l.serveUDP()
			l.exchangeAll(l.mustDial("udp"), 15, 1, 77, 1452)
		}),
	)
}

// withoutOffload lets both ends of a flow send whole checksums. It returns a
// function that undoes this.
func (c *agreeRun) withoutOffload(l flow) (undo func()) {
	set := func(on bool) {
		l.client.SetOffload(c.t, l.client.sender(), testrig.ChecksumOffload, on)
		l.server.SetOffload(c.t, l.server.sender(), testrig.ChecksumOffload, on)
	}
	set(false)
	return func() { set(true) }
}

// joinedOnArrival lets the node join what comes in by its uplink, as a network
// card does with what another machine had to send in packets of the MTU.
func (c *agreeRun) joinedOnArrival(l flow) {
	defer c.withoutOffload(l)()
	c.Node.SetOffload(c.t, testrig.Uplink, testrig.GRO, true)
	defer c.Node.SetOffload(c.t, testrig.Uplink, testrig.GRO, false)
	l.talkTCP(10, 2<<20)
	if largest := c.hosts["a"].record.Largest(c.port, c.port+portsPerCase); largest <= 1514 {
		c.errorf("nothing was joined: the largest packet had %d bytes", largest)
	}
}

// datagramTrains sends many datagrams with one call, which cross the node as one
// packet.
func (c *agreeRun) datagramTrains(l flow) {
	const segment, count = 1000, 20
	l.serveUDP()
	conn := l.mustDial("udp")
	l.exchangeAll(conn, 10, 100)
	if err := setOptions(conn, option(unix.SOL_UDP, unix.UDP_SEGMENT, unix.SOL_UDP, unix.UDP_SEGMENT, segment)); err != nil {
		c.t.Fatal(err)
	}
	for train := range 10 {
		if err := exchangeTrain(conn, c.payload(segment*count, train), segment); err != nil {
			c.errorf("train %d: %v", train, err)
			return
		}
	}
}

// exchangeTrain sends data in one call and reads its segments, in order.
func exchangeTrain(conn net.Conn, data []byte, segment int) error {
	if _, err := conn.Write(data); err != nil {
		return fmt.Errorf("send train: %w", err)
	}
	buf := make([]byte, 65535)
	for at := 0; at < len(data); at += segment {
		if err := conn.SetReadDeadline(time.Now().Add(testrig.Timeout)); err != nil {
			return err
		}
		n, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("read segment %d: %w", at/segment, err)
		}
		if string(buf[:n]) != string(data[at:at+segment]) {
			return fmt.Errorf("segment %d: not what was sent", at/segment)
		}
	}
	return nil
}

// bigPackets wants to see the large packets arrive that the network is made for.
func (c *agreeRun) bigPackets(l flow) {
	l.talkTCP(3, 8<<20)
	largest := 0
	for _, end := range []*agreeHost{l.client, l.server} {
		largest = max(largest, end.record.Largest(c.port, c.port+portsPerCase))
	}
	if largest <= 65536+14 {
		c.errorf("the largest packet had %d bytes; want more than 65536", largest)
	}
}
