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

// layout lists the maps that a set consists of, as bpf/lib/maps.h and
// bpf/lib/count.h declare them. A test compares the two.
var layout = map[string]shape{
	bpf.ZiplineMapEndpoints: {ebpf.Hash, 16, 40, 65536},
	bpf.ZiplineMapDevices:   {ebpf.Hash, 4, 56, 65536},
	bpf.ZiplineMapNetworks:  {ebpf.Hash, 64, 4, bpf.NetworkSlots - 1},
	bpf.ZiplineMapPaths:     {ebpf.PerCPUArray, 4, 24, bpf.PathSlots},
	bpf.ZiplineMapPathSlots: {ebpf.Array, 4, bpf.PathSlots/8 + 8, 1},
	bpf.ZiplineMapUplinks:   {ebpf.Hash, 4, 8, 1024},
	bpf.ZiplineMapNatPorts:  {ebpf.Array, 4, 131072, 1},
	bpf.ZiplineMapCounters:  {ebpf.PerCPUArray, 4, 16, bpf.NetworkSlots * bpf.Hooks * bpf.Reasons},
}

// alwaysOpen are the maps that every ADD and DEL changes. The others are opened by
// whoever asks for one: of those that have values for each CPU, the library first
// asks how many there are.
var alwaysOpen = map[string]bool{
	bpf.ZiplineMapEndpoints: true, bpf.ZiplineMapDevices: true, bpf.ZiplineMapUplinks: true,
}

// errNotOurs says that a program or map is somebody else's, or of another layout.
var errNotOurs = errors.New("not of this layout")

// The programs besides from_endpoint, which makes a set: it alone uses all of
// the maps.
var siblings = []string{bpf.ZiplineProgFromUplink, bpf.ZiplineProgToDevice}

// member is an open program.
type member struct {
	program *ebpf.Program
	info    *progInfo
}

// set is the programs and the maps that they use. The maps are what makes a
// set: two programs with the same maps are versions of one. from_endpoint is
// always there; the siblings are where they could be found.
type set struct {
	member
	siblings map[string]*member
	// maps has the maps that are always open; see openMap for the others.
	maps map[string]*ebpf.Map
	// mapIDs has the ids of the maps, by name.
	mapIDs map[string]uint32
}

func (s *set) close() {
	if s == nil {
		return
	}
	_ = s.program.Close() // closing a descriptor that was only read from
	for _, m := range s.siblings {
		_ = m.program.Close()
	}
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

// openMember takes over the descriptor of a program. Returns errNotOurs for a
// program with another name.
func openMember(fd int, name string) (*member, error) {
	info, err := getProgInfo(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if info.kind != unix.BPF_PROG_TYPE_SCHED_CLS || info.name != name {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("program %d %q: %w", info.id, info.name, errNotOurs)
	}
	program, err := ebpf.NewProgramFromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", info.id, err)
	}
	return &member{program, info}, nil
}

func openProgram(fd int) (*set, error) {
	m, err := openMember(fd, bpf.ZiplineProgFromEndpoint)
	if err != nil {
		return nil, err
	}
	return &set{
		member: *m, siblings: map[string]*member{},
		maps: map[string]*ebpf.Map{}, mapIDs: map[string]uint32{},
	}, nil
}

// memberByID opens a loaded program of ours with this name, of whatever set.
// Returns errNotOurs for one that does not count in counters like ours.
func memberByID(id uint32, name string) (*member, error) { return memberWith(id, name, isCounters) }

// ownProgram is [memberByID] for programs of other layouts too: one that has a
// name of ours and counts in a map that is called as ours.
func ownProgram(id uint32, name string) (*member, error) {
	return memberWith(id, name, looksLikeCounters)
}

// memberWith opens a loaded program with this name and such a map.
func memberWith(id uint32, name string, isOurs func(mapID uint32) bool) (*member, error) {
	fd, err := progByID(id)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	m, err := openMember(fd, name)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(m.info.maps, isOurs) {
		_ = m.program.Close() // only read from
		return nil, fmt.Errorf("program %d %q: %w", id, name, errNotOurs)
	}
	return m, nil
}

func isCounters(id uint32) bool { return countersShape(id) == layout[bpf.ZiplineMapCounters] }

// looksLikeCounters takes counters of other hooks and reasons for ours as well.
func looksLikeCounters(id uint32) bool {
	found, want := countersShape(id), layout[bpf.ZiplineMapCounters]
	found.maxEntries = want.maxEntries
	return found == want
}

// countersShape returns the shape of a map that is called as our counters, or
// that of no map.
func countersShape(id uint32) shape {
	fd, err := mapByID(id)
	if err != nil {
		return shape{}
	}
	defer unix.Close(fd)
	info, err := getMapInfo(fd)
	if err != nil || info.name != bpf.ZiplineMapCounters {
		return shape{}
	}
	return info.shape()
}

func (i *mapInfo) shape() shape {
	return shape{ebpf.MapType(i.kind), i.keySize, i.valueSize, i.maxEntries}
}

func (m *member) uses(mapID uint32) bool { return slices.Contains(m.info.maps, mapID) }

// addSibling takes over the descriptor of a program of the set. Returns
// errNotOurs where it does not count in the set's counters.
func (s *set) addSibling(fd int, name string) error {
	m, err := openMember(fd, name)
	if err != nil {
		return err
	}
	if !m.uses(s.mapIDs[bpf.ZiplineMapCounters]) {
		_ = m.program.Close() // only read from
		return fmt.Errorf("program %d %q: %w", m.info.id, name, errNotOurs)
	}
	s.siblings[name] = m
	return nil
}

// addSiblings adds the siblings, each from what open returns.
func (s *set) addSiblings(open func(name string) (fd int, err error)) error {
	for _, name := range siblings {
		fd, err := open(name)
		if err == nil {
			err = s.addSibling(fd, name)
		}
		if err != nil {
			return fmt.Errorf("program %q: %w", name, err)
		}
	}
	return nil
}

// named returns the program with this name, or nil.
func (s *set) named(name string) *member {
	if name == bpf.ZiplineProgFromEndpoint {
		return &s.member
	}
	return s.siblings[name]
}

// members returns the programs that were found.
func (s *set) members() []*member {
	all := []*member{&s.member}
	for _, name := range siblings {
		if m := s.siblings[name]; m != nil {
			all = append(all, m)
		}
	}
	return all
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
	fd, err := objGet(pinPath(dir, bpf.ZiplineProgFromEndpoint))
	if err != nil {
		return nil, err
	}
	s, err := openProgram(fd)
	if err != nil {
		return nil, err
	}
	for name := range layout {
		fd, err := objGet(pinPath(dir, name))
		if err == nil {
			err = s.addMap(fd)
		}
		if err != nil {
			s.close()
			return nil, err
		}
	}
	if err := s.addSiblings(func(name string) (int, error) { return objGet(pinPath(dir, name)) }); err != nil {
		s.close()
		return nil, err
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
	if info.shape() != want {
		_ = unix.Close(fd)
		return fmt.Errorf("map %q: %w", info.name, errNotOurs)
	}
	s.mapIDs[info.name] = info.id
	if !alwaysOpen[info.name] {
		return unix.Close(fd)
	}
	m, err := ebpf.NewMapFromFD(fd)
	if err != nil {
		return fmt.Errorf("open map %q: %w", info.name, err)
	}
	s.maps[info.name] = m
	return nil
}

// openMap returns a new descriptor of a map.
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

// setByID makes a set of a loaded program, without its siblings.
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
		fd, err := objGet(pinPath(dir, name))
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
