// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"maps"
	"testing"
)

func TestUnreclaimableMemoryIsTheKernelsOwn(t *testing.T) {
	const meminfo = "MemTotal:       1000 kB\nSlab:            70 kB\nSReclaimable:    60 kB\n" +
		"SUnreclaim:       10 kB\nVmallocTotal: 34359738367 kB\nVmallocUsed:      4 kB\nPercpu:           2 kB\nHugePages_Total:  0\n"
	if got := unreclaimable(meminfo); got != 16<<10 {
		t.Errorf("%d bytes; want 16 KiB", got)
	}
	if kernelMemory() == 0 {
		t.Error("this kernel does not say what it takes")
	}
}

func TestMemoryOfFewEndpointsIsNotTold(t *testing.T) {
	grown := map[Subject]kernelGrowth{
		Zipline: kernelGrowth{}.add(100, 9e6).add(900, 31e6), Bridge: kernelGrowth{}.add(leastGrowth-1, 50e6),
	}
	if got := kernelMemoryPerEndpoint(grown); !maps.Equal(got, map[Subject]float64{Zipline: 40e3}) {
		t.Errorf("memory of an endpoint: %v", got)
	}
}
