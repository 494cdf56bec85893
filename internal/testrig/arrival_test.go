// SPDX-License-Identifier: Apache-2.0

package testrig_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestRecorderTellsWhatArrived sends one packet of each kind, and one mutation of
// it, past the node's uplink.
func TestRecorderTellsWhatArrived(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	recorder := w.Outside.Record(t, testrig.Uplink)
	to, own := w.Outside.HardwareAddr(t, testrig.Uplink), w.Node.HardwareAddr(t, testrig.Uplink)
	node4, outside4 := netip.AddrPortFrom(testrig.NodeIPv4, 4001), netip.AddrPortFrom(testrig.OutsideIPv4, 4002)
	node6, outside6 := netip.AddrPortFrom(testrig.NodeIPv6, 4001), netip.AddrPortFrom(testrig.OutsideIPv6, 4002)
	for _, c := range []struct {
		name   string
		packet []byte
		want   string
	}{
		{"udp", testrig.UDP(node4, outside4, []byte("payload")),
			"udp 192.0.2.1:4001 > 192.0.2.2:4002 ttl 64 tos 0x00 length 15 checksum good"},
		{"udp of IPv6", testrig.UDP(node6, outside6, []byte("payload")),
			"udp [2001:db8:ffff::1]:4001 > [2001:db8:ffff::2]:4002 ttl 64 tos 0x00 length 15 checksum good"},
		{"a payload that was changed", mutate(testrig.UDP(node4, outside4, []byte("payload")), func(p []byte) { p[30]++ }),
			"udp 192.0.2.1:4001 > 192.0.2.2:4002 ttl 64 tos 0x00 length 15 checksum bad"},
		{"an IP header that was changed", mutate(testrig.UDP(node4, outside4, []byte("payload")), func(p []byte) { p[8]-- }),
			"udp 192.0.2.1:4001 > 192.0.2.2:4002 ttl 63 tos 0x00 length 15 checksum bad in the IP header"},
		{"no checksum", mutate(testrig.UDP(node4, outside4, nil), func(p []byte) { p[26], p[27] = 0, 0 }),
			"udp 192.0.2.1:4001 > 192.0.2.2:4002 ttl 64 tos 0x00 length 8 checksum none"},
		{"a traffic class", mutate(testrig.UDP(node6, outside6, nil), func(p []byte) { p[0], p[1] = 0x6b, 0x80 }),
			"udp [2001:db8:ffff::1]:4001 > [2001:db8:ffff::2]:4002 ttl 64 tos 0xb8 length 8 checksum good"},
		{"syn", testrig.TCP(node4, outside4, 2),
			"tcp 192.0.2.1:4001 > 192.0.2.2:4002 syn ttl 64 tos 0x00 checksum good"},
		{"rst", testrig.TCP(node6, outside6, 4),
			"tcp [2001:db8:ffff::1]:4001 > [2001:db8:ffff::2]:4002 rst ttl 64 tos 0x00 checksum good"},
		{"the first fragment", mutate(testrig.UDP(node4, outside4, make([]byte, 8)), func(p []byte) { p[6] = 0x20; mendIPv4(p) }),
			"udp 192.0.2.1:4001 > 192.0.2.2:4002 ttl 64 tos 0x00 length 16 fragment"},
		{"a later fragment", mutate(testrig.UDP(node4, outside4, make([]byte, 4)), func(p []byte) { p[7] = 2; mendIPv4(p) }),
			"udp 192.0.2.1:4001 > 192.0.2.2:4002 ttl 64 tos 0x00 length 12 fragment"},
	} {
		recorder.Take(4001, 4003)
		w.Node.SendFrame(t, testrig.Uplink, testrig.Ethernet(to, own, c.packet))
		var shown []string
		for deadline := time.Now().Add(testrig.Timeout); len(shown) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			for a := range recorder.Take(4001, 4003) {
				shown = append(shown, a.String())
			}
		}
		if !slices.Equal(shown, []string{c.want}) {
			t.Errorf("%s: recorded\n%s\nwant\n%s", c.name, strings.Join(shown, "\n"), c.want)
		}
	}
}

// TestRecorderTellsWhatAnErrorIsAbout asks a closed port.
func TestRecorderTellsWhatAnErrorIsAbout(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	recorder := w.Node.Record(t, testrig.Uplink)
	for _, c := range []struct{ from, to, want string }{
		{"192.0.2.1:4001", "192.0.2.2:4002",
			"icmp 192.0.2.2:0 > 192.0.2.1:0 type 3 code 3 ttl 64 tos 0xc0 checksum good about udp 192.0.2.1:4001 > 192.0.2.2:4002 ttl 64"},
		{"[2001:db8:ffff::1]:4001", "[2001:db8:ffff::2]:4002",
			"icmp [2001:db8:ffff::2]:0 > [2001:db8:ffff::1]:0 type 1 code 4 ttl 64 tos 0x00 checksum good about udp [2001:db8:ffff::1]:4001 > [2001:db8:ffff::2]:4002 ttl 64"},
	} {
		packet := testrig.UDP(netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to), nil)
		w.Node.SendFrame(t, testrig.Uplink, testrig.Ethernet(w.Outside.HardwareAddr(t, testrig.Uplink), w.Node.HardwareAddr(t, testrig.Uplink), packet))
		for deadline := time.Now().Add(testrig.Timeout); ; time.Sleep(time.Millisecond) {
			if recorder.Has(func(a testrig.Arrival) bool { return a.String() == c.want }) {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("recorded %v; want %s", recorder.Take(4001, 4003), c.want)
				break
			}
		}
	}
}

func mutate(packet []byte, change func([]byte)) []byte {
	change(packet)
	return packet
}

// mendIPv4 makes the checksum of a header without options right.
func mendIPv4(packet []byte) {
	packet[10], packet[11] = 0, 0
	binary.BigEndian.PutUint16(packet[10:], testrig.Checksum(packet[:20]))
}
