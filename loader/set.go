// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

// shape is the layout of a map as the kernel reports it.
type shape struct {
	kind                           ebpf.MapType
	keySize, valueSize, maxEntries uint32
}

// layout lists the maps that a set consists of, as bpf/lib/maps.h declares
// them. A test compares the two.
var layout = map[string]shape{
	bpf.ZiplineMapEndpoints: {ebpf.Hash, 16, 32, 65536},
	bpf.ZiplineMapDevices:   {ebpf.Hash, 4, 48, 65536},
	bpf.ZiplineMapCounters:  {ebpf.PerCPUArray, 4, 16, bpf.Hooks * bpf.Reasons},
}

// errNotOurs says that a program or map is somebody else's, or of another layout.
var errNotOurs = errors.New("not of this layout")

// set is a program and the maps that it uses. The maps are what makes a set:
// two programs with the same maps are versions of one.
type set struct {
	program *ebpf.Program
	info    *progInfo
	maps    map[string]*ebpf.Map
	// mapIDs has the ids of the maps, by name.
	mapIDs map[string]uint32
}

func (s *set) close() {
	if s == nil {
		return
	}
	_ = s.program.Close() // closing a descriptor that was only read from
	for _, m := range s.maps {
		_ = m.Close()
	}
}

// sameMaps says whether both are versions of one set.
func (s *set) sameMaps(other *set) bool {
	for name, id := range s.mapIDs {
		if other.mapIDs[name] != id {
			return false
		}
	}
	return true
}

// setOfProgram makes a set of a program and takes over its descriptor. Returns
// errNotOurs for a program that is not ours.
func setOfProgram(fd int) (_ *set, err error) {
	info, err := getProgInfo(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if info.kind != unix.BPF_PROG_TYPE_SCHED_CLS || info.name != bpf.ZiplineProgFromEndpoint {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("program %d %q: %w", info.id, info.name, errNotOurs)
	}
	s := &set{info: info, maps: map[string]*ebpf.Map{}, mapIDs: map[string]uint32{}}
	if s.program, err = ebpf.NewProgramFromFD(fd); err != nil {
		return nil, fmt.Errorf("open program %d: %w", info.id, err)
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, id := range info.maps {
		if err := s.addMapByID(id); err != nil {
			return nil, fmt.Errorf("program %d: %w", info.id, err)
		}
	}
	if len(s.maps) != len(layout) {
		return nil, fmt.Errorf("maps of program %d: %w", info.id, errNotOurs)
	}
	return s, nil
}

func (s *set) addMapByID(id uint32) error {
	fd, err := mapByID(id)
	if err != nil {
		return fmt.Errorf("open map %d: %w", id, err)
	}
	return s.addMap(fd)
}

// addMap takes over the descriptor of a map. Maps that the layout does not
// name (.rodata) are left out; one with a name of the layout must have its shape.
func (s *set) addMap(fd int) error {
	info, err := getMapInfo(fd)
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	want, ok := layout[info.name]
	if !ok {
		return unix.Close(fd)
	}
	if have := (shape{ebpf.MapType(info.kind), info.keySize, info.valueSize, info.maxEntries}); have != want {
		_ = unix.Close(fd)
		return fmt.Errorf("map %q: %w", info.name, errNotOurs)
	}
	m, err := ebpf.NewMapFromFD(fd)
	if err != nil {
		return fmt.Errorf("open map %q: %w", info.name, err)
	}
	s.maps[info.name], s.mapIDs[info.name] = m, info.id
	return nil
}

// setByID makes a set of a loaded program.
func setByID(id uint32) (*set, error) {
	fd, err := progByID(id)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	return setOfProgram(fd)
}

// setByPin makes a set of the program pinned in a directory. The maps are
// those that the program uses, whatever is pinned beside it.
func setByPin(dir string) (*set, error) {
	fd, err := objGet(programPin(dir))
	if err != nil {
		return nil, err
	}
	return setOfProgram(fd)
}

// pinned says whether everything of the set is pinned in a directory.
func (s *set) pinned(dir string) bool {
	for name, id := range s.mapIDs {
		fd, err := objGet(mapPin(dir, name))
		if err != nil {
			return false
		}
		info, err := getMapInfo(fd)
		_ = unix.Close(fd) // only read from
		if err != nil || info.id != id {
			return false
		}
	}
	return true
}

// mapNames returns the names of the maps in a fixed order.
func mapNames() []string {
	names := make([]string, 0, len(layout))
	for name := range layout {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
