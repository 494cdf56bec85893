// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// headerCases are packets with something unusual in their headers, mostly amid a
// flow that eBPF carries.
func headerCases() []agreeCase {
	return slices.Concat(
		perWay(agreeCase{name: "a ToS is kept by tcp", fast: fastOfWay}, natWays, func(c *agreeRun, l flow) {
			l.talkTCP(30, 1<<19, tosOption(0xb8))
		}),
		perWay(agreeCase{name: "a ToS is kept by udp and may change", fast: fastOfWay}, natWays, func(c *agreeRun, l flow) {
			l.changing(tosOption(0x28), tosOption(0x03), tosOption(0xb9))
		}),
		perWay(agreeCase{name: "a TTL that is unusual", fast: fastOfWay}, natWays, func(c *agreeRun, l flow) {
			l.changing(ttlOption(255), ttlOption(2), ttlOption(3))
		}),
		ofFamily("IPv4", perWay(agreeCase{name: "IP options on a flow that had none"}, natWays, func(c *agreeRun, l flow) {
			l.changing(bytesOption(unix.SOL_IP, unix.IP_OPTIONS, []byte{1, 1, 1, 0}), bytesOption(unix.SOL_IP, unix.IP_OPTIONS, nil))
		})),
		ofFamily("IPv4", perWay(agreeCase{name: "tcp with IP options"}, []way{toNeighbour, toOutside}, func(c *agreeRun, l flow) {
			l.talkTCP(10, 1<<17, bytesOption(unix.SOL_IP, unix.IP_OPTIONS, []byte{1, 1, 1, 0}))
		})),
		ofFamily("IPv6", perWay(agreeCase{name: "hop-by-hop options on a flow that had none"}, natWays, func(c *agreeRun, l flow) {
			l.changing(bytesOption(unix.SOL_IPV6, unix.IPV6_HOPOPTS, []byte{0, 0, 1, 4, 0, 0, 0, 0}), bytesOption(unix.SOL_IPV6, unix.IPV6_HOPOPTS, nil))
		})),
		ofFamily("IPv6", perWay(agreeCase{name: "destination options on a flow that had none"}, []way{toNeighbour, toOutside}, func(c *agreeRun, l flow) {
			l.changing(bytesOption(unix.SOL_IPV6, unix.IPV6_DSTOPTS, []byte{0, 0, 1, 4, 0, 0, 0, 0}), bytesOption(unix.SOL_IPV6, unix.IPV6_DSTOPTS, nil))
		})),
		ofFamily("IPv6", perWay(agreeCase{name: "tcp with destination options"}, []way{toNeighbour, toOutside}, func(c *agreeRun, l flow) {
			// The kernel itself cannot cut large TCP packets with such options.
			l.talkTCP(20, 1200, bytesOption(unix.SOL_IPV6, unix.IPV6_DSTOPTS, []byte{0, 0, 1, 4, 0, 0, 0, 0}))
		})),
		perWay(agreeCase{name: "udp without a checksum", fast: fastOfWay}, natWays, func(c *agreeRun, l flow) {
			l.serveUDP(noChecksum)
			l.exchangeAll(l.mustDial("udp", noChecksum), 20, 1, 333, 1000)
		}),
		perWay(agreeCase{name: "a wrong checksum stays wrong"}, natWays, (*agreeRun).wrongChecksum),
		perWay(agreeCase{name: "a protocol that nobody knows"}, []way{toNeighbour, toOther, toOutside,
			{name: "from the outside by route", client: "peer", server: "a"}}, func(c *agreeRun, l flow) {
			c.strangeProtocol(l, 253, c.ports(l, 100))
		}),
		perWay(agreeCase{name: "sctp"}, []way{toNeighbour, toOther, toOutside}, func(c *agreeRun, l flow) {
			c.strangeProtocol(l, unix.IPPROTO_SCTP, c.sctpInit(l))
		}),
		perFamily(agreeCase{name: "broadcast and multicast", neighbours: true}, (*agreeRun).groups),
	)
}

func ofFamily(name string, cases []agreeCase) []agreeCase {
	return slices.DeleteFunc(cases, func(c agreeCase) bool { return !strings.HasPrefix(c.name, name) })
}

// changing exchanges datagrams, and goes on each time when one of the options has
// been set on the client.
func (l flow) changing(opts ...sockopt) {
	l.serveUDP()
	conn := l.mustDial("udp")
	l.exchangeAll(conn, 20, 100)
	for _, opt := range opts {
		if err := setOptions(conn, opt); err != nil {
			l.c.t.Fatalf("%s: %v", l.c.name, err)
		}
		l.exchangeAll(conn, 10, 120)
	}
}

// wrongChecksum puts datagrams with a wrong checksum into a flow that is carried:
// a translation must not make them right. The receiver has to drop them.
func (c *agreeRun) wrongChecksum(l flow) {
	c.badAllowed = true
	l.serveUDP()
	conn := l.mustDial("udp")
	l.exchangeAll(conn, 20, 100)
	gateway := c.Node.HardwareAddr(c.t, testrig.Uplink)
	if l.client.pod != nil {
		gateway = c.Node.HardwareAddr(c.t, hostDevice(l.client.pod))
	}
	packet := testrig.UDP(l.from, l.to, []byte("a wrong checksum"))
	packet[len(packet)-1]++
	l.client.SendFrame(c.t, l.client.sender(), testrig.Ethernet(gateway, l.client.HardwareAddr(c.t, l.client.sender()), packet))
	// A later datagram says that this one had the time.
	l.exchangeAll(conn, 1, 100)
}

// ports returns n bytes that begin as TCP and UDP do.
func (c *agreeRun) ports(l flow, n int) []byte {
	data := binary.BigEndian.AppendUint16(nil, l.from.Port())
	data = binary.BigEndian.AppendUint16(data, l.to.Port())
	return append(data, c.payload(n-4, 0)...)
}

// strangeProtocol sends what no socket waits for; the kernel of the server says so.
func (c *agreeRun) strangeProtocol(l flow, protocol int, payload []byte) {
	for range 5 {
		c.sendRaw(l, protocol, payload)
		c.await(l.server.name, "the packet", func(a testrig.Arrival) bool { return int(a.Protocol) == protocol })
		c.await(l.clientEnd(), "an error", func(a testrig.Arrival) bool { return int(a.Quoted.Protocol) == protocol })
	}
}

// sctpInit is an SCTP packet with an INIT chunk.
func (c *agreeRun) sctpInit(l flow) []byte {
	packet := binary.BigEndian.AppendUint16(nil, l.from.Port())
	packet = binary.BigEndian.AppendUint16(packet, l.to.Port())
	packet = append(packet, 0, 0, 0, 0, 0, 0, 0, 0) // tag, checksum
	packet = append(packet, 1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1)
	binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli)))
	return packet
}

// groups sends to everybody. Nobody is to get it by a shortcut; a flow to a
// neighbour that comes after shows that it had the time.
func (c *agreeRun) groups(f family) {
	l := c.open(toNeighbour, f)
	everybody := map[string][]string{
		"IPv4": {"10.77.255.255", "255.255.255.255", "224.0.0.1", "224.0.0.251", "239.1.2.3"},
		"IPv6": {"ff02::1", "ff02::fb", "ff05::2", "ff0e::1234"},
	}[f.name]
	for _, group := range everybody {
		to := netip.AddrPortFrom(netip.MustParseAddr(group), l.to.Port())
		frame := testrig.Ethernet(groupMAC(to.Addr()), l.client.HardwareAddr(c.t, testrig.IfName), testrig.UDP(l.from, to, []byte("everybody")))
		for range 3 {
			l.client.SendFrame(c.t, testrig.IfName, frame)
		}
	}
	l.serveUDP()
	l.exchangeAll(l.mustDial("udp"), 5, 100)
}

// groupMAC returns where Ethernet sends what goes to the group.
func groupMAC(group netip.Addr) net.HardwareAddr {
	raw := group.AsSlice()
	switch {
	case group.Is6():
		return append(net.HardwareAddr{0x33, 0x33}, raw[12:]...)
	case group.IsMulticast():
		return net.HardwareAddr{1, 0, 0x5e, raw[1] & 0x7f, raw[2], raw[3]}
	}
	return testrig.Broadcast
}
