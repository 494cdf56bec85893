// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
)

// ns per packet of what from_endpoint does, without the packet's way to it and
// from it. Run with -count and take the least: the machine adds, never takes.
func BenchmarkFromEndpoint(b *testing.B) {
	for _, c := range []struct {
		name      string
		conntrack bool
		packet    func(w *world) *packet
	}{
		{"neither arp nor ip", true, func(w *world) *packet {
			p := tcp(w.peers["a"], w.peers["b"].v4)
			p.etherType = 0x88cc
			return p
		}},
		{"direct ipv4, no conntrack", false, func(w *world) *packet { return tcp(w.peers["a"], w.peers["b"].v4) }},
		{"direct ipv6, no conntrack", false, func(w *world) *packet { return tcp(w.peers["a"], w.peers["b"].v6) }},
		{"direct ipv4", true, func(w *world) *packet { return tcp(w.peers["a"], w.peers["b"].v4) }},
		{"direct ipv6", true, func(w *world) *packet { return tcp(w.peers["a"], w.peers["b"].v6) }},
		{"to outside ipv4", true, func(w *world) *packet { return tcp(w.peers["a"], outside(w.peers["b"].v4)) }},
		{"to outside ipv6", true, func(w *world) *packet { return tcp(w.peers["a"], outside(w.peers["b"].v6)) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, c.conntrack)
			p := c.packet(w)
			opts := &ebpf.RunOptions{Data: p.bytes(), Context: p.context(), Repeat: uint32(b.N), Reset: b.ResetTimer}
			err := w.do(func() error {
				_, err := w.objs.FromEndpoint.Run(opts)
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}
