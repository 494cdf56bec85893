// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// pathMTUCases are packets that are too large somewhere on their way. The hop
// between the outside and far has MTU 1300, and so has the container s.
func pathMTUCases() []agreeCase {
	toFarOrBack := []way{toFar, {name: "from far through a host port", client: "far", server: "a", fast: fastTracked, via: nodeAddr}}
	toSmall := []way{
		{name: "to a neighbour", client: "a", server: "s", fast: fastDirect, neighbours: true},
		{name: "to a service on a neighbour", client: "a", server: "s", fast: fastTracked, via: serviceAddr},
		{name: "from the outside through a host port", client: "peer", server: "s", fast: fastTracked, via: nodeAddr},
	}
	return slices.Concat(
		perWay(agreeCase{name: "tcp finds the path MTU in both directions", fast: fastOfWay}, toFarOrBack, func(c *agreeRun, l flow) {
			c.forgetPaths(l)
			l.talkTCP(20, 2<<20)
		}),
		perWay(agreeCase{name: "tcp finds the MTU of a container that promises more", fast: fastOfWay}, toSmall, func(c *agreeRun, l flow) {
			c.forgetPaths(l)
			c.promiseMore(l.server, l.f)
			l.talkTCP(20, 2<<20)
		}),
		perWay(agreeCase{name: "udp that may not be fragmented finds the path MTU"}, toFarOrBack, (*agreeRun).refusedDatagrams),
		perWay(agreeCase{name: "udp that may not be fragmented finds the MTU of a container"}, toSmall, (*agreeRun).refusedDatagrams),
		perWay(agreeCase{name: "udp that may be fragmented passes a smaller MTU"}, slices.Concat(toFarOrBack, toSmall), func(c *agreeRun, l flow) {
			c.forgetPaths(l)
			any := mtuOption(unix.IP_PMTUDISC_DONT)
			l.serveUDP(any)
			conn := l.mustDial("udp", any)
			l.exchangeAll(conn, 20, 100)
			l.exchangeAll(conn, 3, 1400, 100)
		}),
	)
}

// refusedDatagrams sends too much on a flow that eBPF carries until the socket is
// told, and goes on with less.
func (c *agreeRun) refusedDatagrams(l flow) {
	c.forgetPaths(l)
	whole := mtuOption(unix.IP_PMTUDISC_DO)
	l.serveUDP()
	conn := l.mustDial("udp", whole)
	l.exchangeAll(conn, 20, 100)
	for deadline := time.Now().Add(testrig.Timeout); ; time.Sleep(5 * time.Millisecond) {
		_, err := conn.Write(c.payload(1400, 0))
		if errors.Is(err, unix.EMSGSIZE) {
			break
		}
		if time.Now().After(deadline) {
			c.errorf("no error for datagrams over the MTU: %v", err)
			return
		}
	}
	l.exchangeAll(conn, 20, 100, 1300-l.f.headers)
}

// forgetPaths lets both ends forget what they have learnt about paths.
func (c *agreeRun) forgetPaths(l flow) {
	c.t.Helper()
	for _, end := range []*agreeHost{l.client, l.server} {
		end.MustRun(c.t, "ip", "route", "flush", "cache")
		end.MustRun(c.t, "ip", "-6", "route", "flush", "cache")
	}
}

// promiseMore lets a container announce a larger MSS than its MTU allows.
func (c *agreeRun) promiseMore(h *agreeHost, f family) {
	c.t.Helper()
	flag, mss := "-4", "1460"
	if f.name == "IPv6" {
		flag, mss = "-6", "1440"
	}
	for line := range strings.Lines(h.MustRun(c.t, "ip", flag, "route", "show")) {
		if route, _, _ := strings.Cut(strings.TrimSpace(line), " advmss"); !strings.HasPrefix(route, "fe80") && !strings.HasPrefix(route, "multicast") {
			route = strings.TrimSuffix(route, " pref medium")
			h.MustRun(c.t, "ip", append([]string{flag, "route", "replace"}, append(strings.Fields(route), "advmss", mss)...)...)
		}
	}
}
