// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"testing"
)

// The cost of an ADD and of a DEL, with the socket, must not depend on how many
// endpoints there are: go test -bench . -benchtime 300x
func BenchmarkAddRemove(b *testing.B) {
	for _, c := range []struct{ endpoints, networks int }{
		{10, 1}, {1000, 1}, {5000, 1}, {5000, 200},
	} {
		enter := func(b *testing.B) {
			r := newRuleset(b)
			for i := range c.endpoints {
				o, sources, opts := endpoint(i, c.networks)
				mustAdd(b, r, o, opts, sources...)
			}
		}
		name := fmt.Sprintf("%d endpoints in %d networks", c.endpoints, c.networks)
		o, sources, _ := endpoint(c.endpoints, c.networks)
		addresses := []netip.Addr{sources[0].Address, sources[1].Address}
		b.Run("add/"+name, func(b *testing.B) {
			enter(b)
			for b.Loop() {
				withSocket(b, func(r *Ruleset) error { return r.Add(o, sources[:1], Options{}) })
				b.StopTimer()
				withSocket(b, func(r *Ruleset) error { return r.Remove(o, addresses) })
				b.StartTimer()
			}
		})
		// Close is not counted: it waits for the kernel (see Close).
		b.Run("remove/"+name, func(b *testing.B) {
			enter(b)
			for b.Loop() {
				b.StopTimer()
				withSocket(b, func(r *Ruleset) error { return r.Add(o, sources[:1], Options{}) })
				b.StartTimer()
				r, err := Open()
				if err != nil {
					b.Fatal(err)
				}
				if err := r.Remove(o, addresses[:1]); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
		b.Run("first of a subnet/"+name, func(b *testing.B) {
			enter(b)
			o, sources, _ := endpoint(250, 251)
			for b.Loop() {
				withSocket(b, func(r *Ruleset) error { return r.Add(o, sources[:1], Options{}) })
				b.StopTimer()
				withSocket(b, func(r *Ruleset) error {
					if err := r.Remove(o, []netip.Addr{sources[0].Address}); err != nil {
						return err
					}
					return r.RemoveNetwork([]netip.Prefix{sources[0].Subnet})
				})
				b.StartTimer()
			}
		})
	}
}

func withSocket(b *testing.B, f func(*Ruleset) error) {
	b.Helper()
	r, err := Open()
	if err != nil {
		b.Fatal(err)
	}
	if err := f(r); err != nil {
		b.Fatal(err)
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
}
