// SPDX-License-Identifier: Apache-2.0

package loader

import "testing"

// What each ADD pays for the programs of a node that has them: under 300 µs.
func BenchmarkOpen(b *testing.B) {
	b.Run("pinned", func(b *testing.B) {
		enterNode(b)
		mustOpen(b, Site{}, 0)
		for b.Loop() {
			node, err := Open(0)
			must(b, err)
			_ = node.Close()
		}
	})
	b.Run("pinned and attached", func(b *testing.B) {
		enterNode(b)
		c := newContainer(b, 1)
		mustOpen(b, Site{}, c.index)
		for b.Loop() {
			node, err := Open(c.index)
			must(b, err)
			_ = node.Close()
		}
	})
	b.Run("find for DEL", func(b *testing.B) {
		enterNode(b)
		c := newContainer(b, 1)
		mustOpen(b, Site{}, c.index)
		for b.Loop() {
			node, err := Find(c.index)
			must(b, err)
			_ = node.Close()
		}
	})
	b.Run("recovered with 500 devices", func(b *testing.B) {
		enterNode(b)
		mustOpen(b, Site{}, 0)
		for i := range 500 {
			addDevice(b, i)
		}
		for b.Loop() {
			b.StopTimer()
			enterMounts(b)
			b.StartTimer()
			node, err := Open(0)
			must(b, err)
			_ = node.Close()
		}
	})
	b.Run("loaded", func(b *testing.B) {
		enterNode(b)
		for b.Loop() {
			s, _, err := load(nil)
			must(b, err)
			s.close()
		}
	})
}

func BenchmarkMaps(b *testing.B) {
	enterNode(b)
	c := newContainer(b, 1, "10.1.0.1/24")
	node := mustOpen(b, Site{}, c.index)
	for b.Loop() {
		must(b, node.Upsert(c.prefixes[0].Addr(), c.endpoint()))
		must(b, node.Delete(c.prefixes[0].Addr(), c.index))
		must(b, node.Forget(c.index))
	}
}
