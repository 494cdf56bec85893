// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/nlink"
)

// RunningSet is what the attached programs of one load have in common: there are
// several while a node is upgraded, or where a device kept an older version.
type RunningSet struct {
	// ID is that of the map of tracers.
	ID uint32
	// Tracers is the map of tracers, by hook; the kernel empties it when the
	// last process that opened it is gone. Endpoints is where the programs find
	// endpoints. Both are the caller's to close.
	Tracers, Endpoints *ebpf.Map
}

// Close closes the descriptors.
func (r *RunningSet) Close() error { return errors.Join(r.Tracers.Close(), r.Endpoints.Close()) }

// Running returns what runs on the devices of the calling thread's namespace but
// what has an id in known. Returns [ErrNotLoaded] where no program of ours is
// attached, and [ErrOtherVersion] where all are of versions without tracers.
func Running(known func(id uint32) bool) ([]*RunningSet, error) { return Site{}.Running(known) }

// Running returns what runs on the node's devices. See [Running].
func (s Site) Running(known func(id uint32) bool) (_ []*RunningSet, err error) {
	endpointsOf, attached, err := s.attachedTracers()
	switch {
	case err != nil:
		return nil, err
	case !attached:
		return nil, ErrNotLoaded
	case len(endpointsOf) == 0:
		return nil, fmt.Errorf("programs that cannot be traced: %w", ErrOtherVersion)
	}
	var running []*RunningSet
	for tracers, endpoints := range endpointsOf {
		if known(tracers) {
			continue
		}
		r, err := openRunning(tracers, endpoints)
		if errors.Is(err, unix.ENOENT) {
			continue // gone with its programs
		}
		if err != nil {
			for _, r := range running {
				_ = r.Close() // the error is told
			}
			return nil, err
		}
		running = append(running, r)
	}
	return running, nil
}

// attachedTracers returns the ids of the maps of endpoints by those of the maps
// of tracers, of all programs attached, and whether there are any at all.
func (s Site) attachedTracers() (endpointsOf map[uint32]uint32, attached bool, err error) {
	links, err := nlink.Links()
	if err != nil {
		return nil, false, err
	}
	seen := map[uint32]bool{}
	endpointsOf = map[uint32]uint32{}
	for _, link := range links {
		// to_device is nowhere without one of these, and has no use for endpoints.
		for _, p := range []place{fromEndpoint, fromUplink} {
			ids, err := s.attachedIDs(link.Attrs().Index, p)
			if err != nil && !isGone(err) && !errors.Is(err, ErrForeign) {
				return nil, false, fmt.Errorf("query programs of device %s: %w", link.Attrs().Name, err)
			}
			for _, id := range ids {
				if seen[id] {
					continue
				}
				seen[id] = true
				m, err := ownProgram(id, p.program)
				if err != nil {
					continue // somebody else's, or gone
				}
				attached = true
				tracers, endpoints := m.tracers()
				_ = m.program.Close() // only read from
				if tracers != 0 && endpoints != 0 {
					endpointsOf[tracers] = endpoints
				}
			}
		}
	}
	return endpointsOf, attached, nil
}

// tracers returns the ids of two of the program's maps, 0 where it has none.
func (m *member) tracers() (tracers, endpoints uint32) {
	for _, id := range m.info.maps {
		fd, err := mapByID(id)
		if err != nil {
			continue // gone with the program
		}
		info, err := getMapInfo(fd)
		_ = unix.Close(fd) // only read from
		switch {
		case err != nil:
		case info.name == bpf.ZiplineMapEndpoints && info.shape() == layout[info.name]:
			endpoints = id
		case info.name == bpf.ZiplineMapTracers && info.kind == unix.BPF_MAP_TYPE_PROG_ARRAY && info.maxEntries >= bpf.Hooks:
			tracers = id
		}
	}
	return tracers, endpoints
}

func openRunning(tracers, endpoints uint32) (*RunningSet, error) {
	r := &RunningSet{ID: tracers}
	var err error
	if r.Tracers, err = ebpf.NewMapFromID(ebpf.MapID(tracers)); err != nil {
		return nil, fmt.Errorf("open map %d: %w", tracers, err)
	}
	if r.Endpoints, err = ebpf.NewMapFromID(ebpf.MapID(endpoints)); err != nil {
		_ = r.Tracers.Close() // the error is told
		return nil, fmt.Errorf("open map %d: %w", endpoints, err)
	}
	return r, nil
}
