// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// benchIPAM has room for every size below.
const benchIPAM = `{"ranges":[[{"subnet":"10.0.0.0/16"}]]}`

var benchSizes = []int{10, 1_000, 10_000}

// newBenchPool returns the configuration of a pool with n leases.
func newBenchPool(b *testing.B, n int) string {
	b.Helper()
	stdin := poolConfig(b.TempDir(), benchIPAM)
	p := newPoolWith(b, stdin, "")
	for i := range n {
		mustAllocate(b, p, owner(i))
	}
	return stdin
}

// BenchmarkAllocateAndRelease measures an ADD and a DEL as a plugin does them,
// with the configuration read for each. Both must not depend on the number of
// leases.
func BenchmarkAllocateAndRelease(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			stdin := newBenchPool(b, n)
			for b.Loop() {
				mustAllocate(b, newPoolWith(b, stdin, ""), owner(-1))
				mustRelease(b, newPoolWith(b, stdin, ""), owner(-1))
			}
		})
	}
}

// BenchmarkAllocate measures ADD alone.
func BenchmarkAllocate(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			stdin := newBenchPool(b, n)
			for b.Loop() {
				mustAllocate(b, newPoolWith(b, stdin, ""), owner(-1))
				b.StopTimer()
				mustRelease(b, newPoolWith(b, stdin, ""), owner(-1))
				b.StartTimer()
			}
		})
	}
}

// BenchmarkAllocateBehindTakenAddresses measures an ADD whose turn in the round
// robin comes to a block of n addresses that are all taken.
func BenchmarkAllocateBehindTakenAddresses(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			p := newPoolWith(b, newBenchPool(b, n), "")
			last := filepath.Join(p.Dir(), lastPrefix+"0")
			for b.Loop() {
				if err := os.WriteFile(last, []byte("10.0.0.2"), 0o600); err != nil {
					b.Fatal(err)
				}
				mustAllocate(b, p, owner(-1))
				mustRelease(b, p, owner(-1))
			}
		})
	}
}

// BenchmarkReleaseOfNothing measures a DEL that is repeated.
func BenchmarkReleaseOfNothing(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			p := newPoolWith(b, newBenchPool(b, n), "")
			for b.Loop() {
				mustRelease(b, p, owner(-1))
			}
		})
	}
}

// BenchmarkAllocateAfterHostLocal measures what the first command pays after
// host-local was in the directory: one look through it (beside two releases).
func BenchmarkAllocateAfterHostLocal(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			p := newPoolWith(b, newBenchPool(b, n), "")
			for b.Loop() {
				plant(b, p, "10.0.255.250", "foreign\r\neth0", 0)
				mustAllocate(b, p, owner(-1))
				mustRelease(b, p, owner(-1))
				mustRelease(b, p, Owner{"foreign", "eth0"})
			}
		})
	}
}

// BenchmarkHostLocal measures the reference program, process start included, in
// the directory of a pool with n leases.
func BenchmarkHostLocal(b *testing.B) {
	h := newHostLocal(b)
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			stdin := newBenchPool(b, n)
			for b.Loop() {
				h.mustRun(b, "ADD", stdin, owner(-1))
				h.mustRun(b, "DEL", stdin, owner(-1))
			}
		})
	}
}
