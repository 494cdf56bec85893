// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

// ProgramStatus is what the kernel tells of a loaded program.
type ProgramStatus struct {
	ID   uint32
	Name string
	// Tag is the kernel's hash of the instructions.
	Tag string
	// LoadedAt is when it was loaded, to the second.
	LoadedAt time.Time
	// Instructions is how many the verifier looked at (0 before Linux 5.16).
	Instructions uint32
	// JITBytes is the size of the machine code; 0 without JIT, or where the
	// kernel does not show it.
	JITBytes uint32
	// Bytes is the memory that the program is accounted with.
	Bytes uint64
	// Runs and Runtime count since the load, while the kernel's statistics are
	// on; see [StatsEnabled].
	Runs    uint64
	Runtime time.Duration
	// Maps are the ids of the maps that it uses.
	Maps []uint32
}

// DescribeProgram asks the kernel about a loaded program. The error is
// [os.ErrNotExist] for an id that no program has.
func DescribeProgram(id uint32) (_ *ProgramStatus, err error) {
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	defer func() { err = errors.Join(err, program.Close()) }()
	info, err := program.Info()
	if err != nil {
		return nil, fmt.Errorf("describe program %d: %w", id, err)
	}
	s := &ProgramStatus{ID: id, Name: info.Name, Tag: info.Tag}
	s.Instructions, _ = info.VerifiedInstructions()
	if size, err := info.JitedSize(); err == nil {
		s.JITBytes = size // hidden where kptr_restrict says so
	}
	s.Bytes, _ = info.Memlock()
	if since, ok := info.LoadTime(); ok {
		s.LoadedAt = bootTime().Add(since).Truncate(time.Second)
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		s.Maps = append(s.Maps, uint32(id))
	}
	slices.Sort(s.Maps)
	stats, err := program.Stats()
	if err != nil {
		return nil, fmt.Errorf("read statistics of program %d: %w", id, err)
	}
	s.Runs, s.Runtime = stats.RunCount, stats.Runtime
	return s, nil
}

// bootTime is when the kernel started, by the clock of now.
func bootTime() time.Time {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(up.Nano())).UTC()
}

// StatsEnabled says whether the kernel counts and times each run of a program
// (sysctl kernel.bpf_stats_enabled).
func StatsEnabled() bool {
	value, err := os.ReadFile("/proc/sys/kernel/bpf_stats_enabled")
	return err == nil && strings.TrimSpace(string(value)) == "1"
}

// Programs returns the ids of the node's programs, as far as they could be found.
func (n *Node) Programs() []uint32 {
	var ids []uint32
	for _, m := range n.members() {
		ids = append(ids, m.info.id)
	}
	return ids
}

// PinDir returns the directory in which the node's programs and maps are pinned,
// or "" where this mount namespace does not show them.
func (n *Node) PinDir() string {
	if dir := n.pinDir(); n.pinned(dir) {
		return dir
	}
	return ""
}

// MountedBPFFS returns the mount point of the bpffs, or "" where there is none.
func MountedBPFFS() string {
	if path := (Site{}).bpffs(); isBPFFS(path) {
		return path
	}
	return ""
}

// MapStatus is what the kernel tells of a map of the node.
type MapStatus struct {
	ID   uint32
	Name string
	// Type is the kernel's word for the kind of the map.
	Type string
	// KeyBytes and ValueBytes are the sizes of a key and of a value.
	KeyBytes, ValueBytes uint32
	// Entries is how many there are, MaxEntries how many there can be. An array
	// has all of them from the start.
	Entries, MaxEntries uint32
	// Array says that the map cannot fill up.
	Array bool
	// Bytes is the memory that the map is accounted with; what the kernel
	// reports of it is exact from Linux 6.4 on.
	Bytes uint64
}

// Maps describes the node's maps, by name.
func (n *Node) Maps() (_ []MapStatus, err error) {
	maps, release, err := n.openMaps()
	if err != nil {
		return nil, err
	}
	defer release()
	list := make([]MapStatus, 0, len(maps))
	for name, m := range maps {
		s, err := describeMap(m)
		if err != nil {
			return nil, fmt.Errorf("describe map %q: %w", name, err)
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b MapStatus) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func describeMap(m *ebpf.Map) (MapStatus, error) {
	info, err := m.Info()
	if err != nil {
		return MapStatus{}, err
	}
	s := MapStatus{
		Name: info.Name, Type: mapTypes[info.Type], KeyBytes: info.KeySize, ValueBytes: info.ValueSize,
		MaxEntries: info.MaxEntries, Array: info.Type == ebpf.PerCPUArray || info.Type == ebpf.Array,
	}
	if s.Type == "" {
		s.Type = strings.ToLower(info.Type.String())
	}
	id, _ := info.ID()
	s.ID = uint32(id)
	s.Bytes, _ = info.Memlock()
	if s.Entries = s.MaxEntries; !s.Array {
		s.Entries, err = countEntries(m)
	}
	return s, err
}

// mapTypes has the words of bpftool for the types that we use.
var mapTypes = map[ebpf.MapType]string{
	ebpf.Hash: "hash", ebpf.Array: "array", ebpf.PerCPUArray: "percpu_array", ebpf.PerCPUHash: "percpu_hash", ebpf.RingBuf: "ringbuf",
}

// countEntries walks over the keys: the kernel does not tell how many there are.
// Where the key that it stands on is deleted meanwhile the kernel begins anew, so
// no more are counted than fit into the map.
func countEntries(m *ebpf.Map) (count uint32, err error) {
	var key []byte
	for count < m.MaxEntries() {
		if key == nil {
			key, err = m.NextKeyBytes(nil)
		} else {
			key, err = m.NextKeyBytes(key)
		}
		if err != nil {
			return count, fmt.Errorf("count entries: %w", err)
		}
		if key == nil {
			break
		}
		count++
	}
	return count, nil
}

// Published returns the entries of the endpoints map.
func (n *Node) Published() (map[netip.Addr]Endpoint, error) { return n.endpoints() }

// Pressure is how full the map is, from 0 to 1. An array is never full.
func (s *MapStatus) Pressure() float64 {
	if s.Array || s.MaxEntries == 0 {
		return 0
	}
	return float64(s.Entries) / float64(s.MaxEntries)
}

// Limits says whether something fails when the map is full. An array always has all
// of its entries, and the name of a network that comes too late is only not counted.
func (s *MapStatus) Limits() bool { return !s.Array && s.Name != bpf.ZiplineMapNetworks }

// Examine is [Probe] for those who only look: it mounts no bpffs, and takes for
// granted that one can be. The kernel may load nf_conntrack to answer.
func Examine() *Report {
	return &Report{
		Programs: HavePrograms(), RedirectPeer: HaveRedirectPeer(), Conntrack: HaveConntrack(), TCX: HaveTCX(),
	}
}
