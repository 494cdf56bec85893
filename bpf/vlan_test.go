// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"
)

// Tags that the kernel has taken off before a program runs.
func TestTaggedFrames(t *testing.T) {
	w := newTrackingWorld(t)
	a, b := w.peers["a"], w.peers["b"]
	const priority, vlan5 = 3 << 13, 5
	const next, source, mac = ZiplineReasonREASON_NEXT_VLAN, ZiplineReasonREASON_DROP_SOURCE, ZiplineReasonREASON_DROP_MAC
	plain4, plain6 := func(from *peer) []byte { return tcp(from, b.v4).bytes() }, func(from *peer) []byte { return tcp(from, b.v6).bytes() }
	wrongSource := func(from *peer) []byte {
		p := tcp(from, b.v4)
		foreign(p)
		return p.bytes()
	}
	for _, c := range []struct {
		name  string
		from  *peer
		frame func(from *peer) []byte
		tag   uint16
		want  Reason
	}{
		{"a vlan tag", a, plain4, vlan5, next},
		{"a vlan tag, ipv6", a, plain6, vlan5, next},
		{"a vlan tag before a foreign address", a, wrongSource, vlan5, next},
		{"a priority tag", a, plain4, priority, next},
		{"a priority tag, ipv6", a, plain6, priority, next},
		{"a priority tag before a foreign address", a, wrongSource, priority, source},
		{"a priority tag before a foreign mac", w.peers["pinned"], func(from *peer) []byte {
			p := tcp(from, b.v4)
			p.ethSrc = a.mac
			return p.bytes()
		}, priority, mac},
		{"a priority tag before another tag", a, func(from *peer) []byte {
			p := tcp(from, b.v4)
			p.etherType = typeVLAN
			return p.bytes()
		}, priority, ZiplineReasonREASON_DROP_VLAN},
		{"a priority tag before another service tag", a, func(from *peer) []byte {
			p := tcp(from, b.v4)
			p.etherType = 0x88a8
			return p.bytes()
		}, priority, ZiplineReasonREASON_DROP_VLAN},
		{"a vlan tag before another tag", a, func(from *peer) []byte {
			p := tcp(from, b.v4)
			p.etherType = typeVLAN
			return p.bytes()
		}, vlan5, next},
		{"a priority tag before an arp request", a, func(from *peer) []byte { return whoHas(from, b.v4).bytes() }, priority, next},
		{"a priority tag before an arp request from a foreign address", a, func(from *peer) []byte {
			request := whoHas(from, b.v4)
			request.sip = other(request.sip, 99)
			return request.bytes()
		}, priority, ZiplineReasonREASON_DROP_ARP},
		{"a priority tag before a solicitation", a, func(from *peer) []byte { return solicit(from, b.v6).bytes() }, priority, next},
	} {
		t.Run(c.name, func(t *testing.T) {
			frame := c.frame(copyPeer(c.from))
			got := w.runHook(t, HookEndpoint, frame, skBuff{Ifindex: uint32(c.from.index)}, vlanTag(c.tag))
			w.wantReason(t, got, c.want, len(frame))
		})
	}
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := w.flows()["from outside to a container"].entry(protocol, v6)
		w.add(t, e)
		w.admit(t, e, original|replying)
		frame := e.packet(w, original, false).bytes()
		got := w.runHook(t, HookUplink, frame, skBuff{Ifindex: uint32(w.uplink.index)}, vlanTag(vlan5))
		w.wantReason(t, got, next, len(frame))
	})
}
