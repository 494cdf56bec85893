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
	// maps has the maps but the counters; see openMap.
	maps map[string]*ebpf.Map
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

// openProgram takes over the descriptor of a program. Returns errNotOurs for a
// program that is not ours.
func openProgram(fd int) (*set, error) {
	info, err := getProgInfo(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if info.kind != unix.BPF_PROG_TYPE_SCHED_CLS || info.name != bpf.ZiplineProgFromEndpoint {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("program %d %q: %w", info.id, info.name, errNotOurs)
	}
	program, err := ebpf.NewProgramFromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", info.id, err)
	}
	return &set{program: program, info: info, maps: map[string]*ebpf.Map{}, mapIDs: map[string]uint32{}}, nil
}

// setOfProgram makes a set of a program and the maps that it uses, and takes
// over the program's descriptor. Returns errNotOurs.
func setOfProgram(fd int) (*set, error) {
	s, err := openProgram(fd)
	if err != nil {
		return nil, err
	}
	for _, id := range s.info.maps {
		fd, err := mapByID(id)
		if err == nil {
			err = s.addMap(fd)
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("map %d of program %d: %w", id, s.info.id, err)
		}
	}
	return s.complete()
}

// setByPin makes a set of what is pinned in a directory. Returns errNotOurs
// where the pinned program does not use the pinned maps.
func setByPin(dir string) (*set, error) {
	fd, err := objGet(programPin(dir))
	if err != nil {
		return nil, err
	}
	s, err := openProgram(fd)
	if err != nil {
		return nil, err
	}
	for name := range layout {
		fd, err := objGet(mapPin(dir, name))
		if err == nil {
			err = s.addMap(fd)
		}
		if err != nil {
			s.close()
			return nil, err
		}
	}
	return s.complete()
}

// complete returns the set if it has all maps of the layout, and its program
// uses each of them.
func (s *set) complete() (*set, error) {
	for name := range layout {
		if !slices.Contains(s.info.maps, s.mapIDs[name]) {
			s.close()
			return nil, fmt.Errorf("map %q of program %d: %w", name, s.info.id, errNotOurs)
		}
	}
	return s, nil
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
	s.mapIDs[info.name] = info.id
	if info.name == bpf.ZiplineMapCounters {
		return unix.Close(fd)
	}
	m, err := ebpf.NewMapFromFD(fd)
	if err != nil {
		return fmt.Errorf("open map %q: %w", info.name, err)
	}
	s.maps[info.name] = m
	return nil
}

// openMap returns a new descriptor of a map. The counters are only ever opened
// so: ADD has no use for them, and the library asks how many CPUs there are.
func (s *set) openMap(name string) (*ebpf.Map, error) {
	fd, err := mapByID(s.mapIDs[name])
	if err != nil {
		return nil, fmt.Errorf("open map %q: %w", name, err)
	}
	m, err := ebpf.NewMapFromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("open map %q: %w", name, err)
	}
	return m, nil
}

// openMaps returns new descriptors of all maps.
func (s *set) openMaps() (maps map[string]*ebpf.Map, release func(), err error) {
	maps = map[string]*ebpf.Map{}
	release = func() {
		for _, m := range maps {
			_ = m.Close() // the set has its own
		}
	}
	for name := range layout {
		if maps[name], err = s.openMap(name); err != nil {
			delete(maps, name)
			release()
			return nil, nil, err
		}
	}
	return maps, release, nil
}

// setByID makes a set of a loaded program.
func setByID(id uint32) (*set, error) {
	fd, err := progByID(id)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	return setOfProgram(fd)
}

// pinned says whether the maps of the set are those pinned in a directory.
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
