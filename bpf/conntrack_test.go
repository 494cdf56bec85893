// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// track enters a flow into the conntrack of the world's namespace, as if the
// stack had seen its first packet and, for a translated one, a rule had changed
// the reply's tuple.
func (w *world) track(tb testing.TB, protocol byte, orig, reply [2]netip.AddrPort) {
	tb.Helper()
	tuple := func(t [2]netip.AddrPort) netlink.IPTuple {
		return netlink.IPTuple{
			SrcIP: t[0].Addr().AsSlice(), DstIP: t[1].Addr().AsSlice(),
			SrcPort: t[0].Port(), DstPort: t[1].Port(), Protocol: protocol,
		}
	}
	family := unix.AF_INET
	if orig[0].Addr().Is6() {
		family = unix.AF_INET6
	}
	flow := &netlink.ConntrackFlow{FamilyType: uint8(family), Forward: tuple(orig), Reverse: tuple(reply), TimeOut: 100}
	if protocol == unix.IPPROTO_TCP {
		flow.ProtoInfo = &netlink.ProtoInfoTCP{State: 3} // TCP_CONNTRACK_ESTABLISHED
	}
	err := w.do(func() error {
		return netlink.ConntrackCreate(netlink.ConntrackTable, netlink.InetFamily(family), flow)
	})
	if err != nil {
		tb.Fatalf("create conntrack entry: %v", err)
	}
}

func TestFlowsThatConntrackKnowsGoToTheStack(t *testing.T) {
	for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, v6 := range []bool{false, true} {
			t.Run(protocolName(protocol, v6), func(t *testing.T) { testTracked(t, protocol, v6) })
		}
	}
}

func protocolName(protocol byte, v6 bool) string {
	name := map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[protocol]
	if v6 {
		return name + "6"
	}
	return name + "4"
}

func testTracked(t *testing.T, protocol byte, v6 bool) {
	w := newWorld(t, true)
	a, b := w.peers["a"], w.peers["b"]
	src, dst, service := a.v4, b.v4, netip.MustParseAddr("10.96.0.1")
	if v6 {
		src, dst, service = a.v6, b.v6, netip.MustParseAddr("fd00:96::1")
	}
	client, server := netip.AddrPortFrom(src, clientPort), netip.AddrPortFrom(dst, tcpPort)
	send := func(from *peer, to netip.AddrPort, sport uint16) Reason {
		p := tcp(copyPeer(from), to.Addr())
		p.protocol, p.sport, p.dport = protocol, sport, to.Port()
		for reason := range w.run(t, p.bytes(), p.context()).counted {
			return reason
		}
		return 0
	}
	want := func(what string, have, want Reason) {
		t.Helper()
		if have != want {
			t.Errorf("%s: %q, want %q", what, have, want)
		}
	}
	const known, unknown = ZiplineReasonREASON_NEXT_NOT_ESTABLISHED, ZiplineReasonREASON_DIRECT
	want("a flow before it is known", send(a, server, clientPort), unknown)
	w.track(t, protocol, [2]netip.AddrPort{client, server}, [2]netip.AddrPort{server, client})
	want("the original direction", send(a, server, clientPort), known)
	want("the reply direction", send(b, client, tcpPort), known)
	want("a flow from another port", send(a, server, clientPort+1), unknown)
	want("a flow to another port", send(a, netip.AddrPortFrom(dst, tcpPort+1), clientPort), unknown)

	// A service address of which b is the backend: b's replies must be
	// translated, though they are addressed to a neighbour.
	other := netip.AddrPortFrom(src, 50000)
	w.track(t, protocol, [2]netip.AddrPort{other, netip.AddrPortFrom(service, 443)}, [2]netip.AddrPort{server, other})
	want("the reply of a translated flow", send(b, other, tcpPort), known)
}

// On a kernel without the conntrack functions the program is loaded with the
// lookup cut out; then a known flow is carried like any other.
func TestWithoutConntrackNothingIsLookedUp(t *testing.T) {
	w := newWorld(t, false)
	a, b := w.peers["a"], w.peers["b"]
	client, server := netip.AddrPortFrom(a.v4, clientPort), netip.AddrPortFrom(b.v4, tcpPort)
	w.track(t, unix.IPPROTO_TCP, [2]netip.AddrPort{client, server}, [2]netip.AddrPort{server, client})
	w.check(t, b.v4, row{"", func(*world, *packet) {}, ZiplineReasonREASON_DIRECT})
}
