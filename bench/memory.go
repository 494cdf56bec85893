// SPDX-License-Identifier: Apache-2.0

// Memory of the kernel that endpoints take.

package bench

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/zipline-cni/zipline/loader"
)

// programsMemory is the name of all programs of a node among its maps.
const programsMemory = "programs"

// measureMaps notes what the maps and programs of the plugin under test take.
func (r *run) measureMaps(endpoints int) error {
	var maps []MapMemory
	err := r.worlds[Zipline].node.Do(func() (err error) {
		maps, err = readMaps(endpoints)
		return err
	})
	if err != nil {
		return fmt.Errorf("measure maps at %d endpoints: %w", endpoints, err)
	}
	r.maps = append(r.maps, maps...)
	return nil
}

// readMaps asks the kernel about the maps and programs of the calling thread's
// node. One without programs has none.
func readMaps(endpoints int) (memory []MapMemory, err error) {
	node, err := loader.Find(0)
	if errors.Is(err, loader.ErrNotLoaded) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	maps, err := node.Maps()
	if err != nil {
		return nil, err
	}
	for _, m := range maps {
		memory = append(memory, MapMemory{Endpoints: endpoints, Name: m.Name, Bytes: m.Bytes})
	}
	programs := MapMemory{Endpoints: endpoints, Name: programsMemory}
	for _, id := range node.Programs() {
		program, err := loader.DescribeProgram(id)
		if err != nil {
			return nil, err
		}
		programs.Bytes += program.Bytes + uint64(program.JITBytes)
	}
	return append(memory, programs), nil
}

// leastGrowth is the number of endpoints from which on their memory stands out
// from what a machine does beside.
const leastGrowth = 500

// kernelGrowth is by how many bytes the kernel's memory grew while endpoints were
// added.
type kernelGrowth struct {
	endpoints int
	bytes     int64
}

func (g kernelGrowth) add(endpoints int, bytes int64) kernelGrowth {
	return kernelGrowth{g.endpoints + endpoints, g.bytes + bytes}
}

// kernelMemoryPerEndpoint returns the average of those that have grown enough.
func kernelMemoryPerEndpoint(grown map[Subject]kernelGrowth) map[Subject]float64 {
	each := map[Subject]float64{}
	for subject, g := range grown {
		if g.endpoints >= leastGrowth {
			each[subject] = float64(g.bytes) / float64(g.endpoints)
		}
	}
	return each
}

// kernelMemory returns the bytes that the kernel has taken for itself and cannot
// give back, or 0 where it does not say.
func kernelMemory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return unreclaimable(string(text))
}

// unreclaimable adds up the lines of /proc/meminfo that are such memory.
func unreclaimable(meminfo string) int64 {
	var bytes int64
	for line := range strings.Lines(meminfo) {
		var name string
		var kib int64
		if _, err := fmt.Sscanf(line, "%s %d kB", &name, &kib); err != nil {
			continue
		}
		switch name {
		case "SUnreclaim:", "Percpu:", "VmallocUsed:":
			bytes += kib << 10
		}
	}
	return bytes
}
