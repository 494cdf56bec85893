// SPDX-License-Identifier: Apache-2.0

package testrig_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

func TestEchoServersSayWhichPeerTheySee(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	payload := bytes.Repeat([]byte("zipline"), 1000)
	for _, c := range []struct{ node, outside netip.Addr }{
		{testrig.NodeIPv4, testrig.InternetIPv4},
		{testrig.NodeIPv6, testrig.InternetIPv6},
	} {
		tcp := w.Outside.ServeTCP(t, netip.AddrPortFrom(c.outside, 0))
		udp := w.Outside.ServeUDP(t, netip.AddrPortFrom(c.outside, 0))
		peer, err := w.Node.EchoTCP(tcp.Addr, payload, testrig.Socket{})
		if err != nil || peer.Addr() != c.node {
			t.Errorf("tcp: peer %s, error %v; want %s", peer, err, c.node)
		}
		peer, err = w.Node.EchoUDP(udp.Addr, payload, testrig.Socket{})
		if err != nil || peer.Addr() != c.node {
			t.Errorf("udp: peer %s, error %v; want %s", peer, err, c.node)
		}
		if err := w.Node.Bulk(tcp.Addr, 8<<20); err != nil {
			t.Error(err)
		}
		if got := len(tcp.Peers()); got != 2 {
			t.Errorf("server counted %d connections; want 2", got)
		}
	}
}

func TestClientsNoticeThatNobodyAnswers(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	nobody := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.99"), 9)
	quick := testrig.Socket{Timeout: testrig.Patience}
	if _, err := w.Node.EchoTCP(nobody, nil, quick); err == nil {
		t.Error("tcp to nobody succeeded")
	}
	if _, err := w.Node.EchoUDP(nobody, nil, quick); err == nil {
		t.Error("udp to nobody succeeded")
	}
	if _, err := w.Node.PingWith(nobody.Addr(), testrig.PingOptions{Negative: true}); err == nil {
		t.Error("ping of nobody succeeded")
	}
}

func TestRawFramesArriveWithRightChecksums(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	mac := w.Outside.HardwareAddr(t, testrig.Uplink)
	own := w.Node.HardwareAddr(t, testrig.Uplink)
	for _, c := range []struct{ node, outside netip.Addr }{
		{testrig.NodeIPv4, testrig.OutsideIPv4},
		{testrig.NodeIPv6, testrig.OutsideIPv6},
	} {
		server := w.Outside.ServeUDP(t, netip.AddrPortFrom(c.outside, 0))
		sniffer := w.Node.Sniff(t, testrig.Uplink)
		from := netip.AddrPortFrom(c.node, 4242)
		w.Node.SendFrame(t, testrig.Uplink, testrig.Ethernet(mac, own, testrig.UDP(from, server.Addr, []byte("raw"))))
		// The kernel answers only what has the right checksum.
		answer, ok := sniffer.Wait(func(p testrig.Captured) bool { return p.Src == c.outside && p.DstPort == 4242 }, testrig.Timeout)
		if !ok || answer.Outgoing {
			t.Errorf("udp to %s: answer %v, %s", c.outside, ok, answer)
		}
		w.Node.SendFrame(t, testrig.Uplink, testrig.Ethernet(mac, own, testrig.Echo(c.node, c.outside)))
		if _, ok := sniffer.Wait(func(p testrig.Captured) bool {
			return p.Src == c.outside && (p.Protocol == 1 || p.Protocol == 58)
		}, testrig.Timeout); !ok {
			t.Errorf("echo request to %s: no answer", c.outside)
		}
		syn := testrig.TCP(from, netip.AddrPortFrom(c.outside, 9), 2)
		w.Node.SendFrame(t, testrig.Uplink, testrig.Ethernet(mac, own, syn))
		if _, ok := sniffer.Wait(func(p testrig.Captured) bool {
			return p.Src == c.outside && p.Protocol == 6 && p.DstPort == 4242
		}, testrig.Timeout); !ok {
			t.Errorf("tcp syn to %s: no reset", c.outside)
		}
	}
}
