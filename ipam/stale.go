// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"path/filepath"
	"slices"
)

// Stale returns the leases of a network that nobody holds any more, and with end
// ends them. An address that two containers have is worse than one that is lost
// until its DEL, the runtime's GC or the next boot, so a lease is only stale if
// all of this is so:
//
//   - This package made it, for a pool of this node: its file says so, see
//     [Pool.Node]. Whoever leases by host-local, for whatever plugin, makes a
//     file that doesn't. Nor is the lease of a node in another network
//     namespace, or on another machine, that shares the directory.
//   - It was made in this boot. Where nobody has used this package since, the
//     directory is not touched, and no lease of an earlier boot is swept.
//   - held denies it. It is asked under the directory's lock, and looks for what
//     an ADD makes before it calls [Pool.Allocate] and a DEL removes before it
//     calls [Pool.Release]: the attachment's device. So an ADD that is under way
//     holds its lease, and one that was killed does as long as its device is there.
//
// It goes on after an error. Errors are *IOError.
func Stale(dataDir, network, node string, held func(Lease) bool, end bool) ([]Lease, error) {
	st := &store{dir: filepath.Join(dataDir, network), boot: currentBoot}
	return st.stale(node, held, end)
}

func (st *store) stale(node string, held func(Lease) bool, end bool) ([]Lease, error) {
	s := &session{store: st, bootID: st.boot().id}
	// Before the lock, whose file would be made in another plugin's directory.
	if used, err := s.usedThisBoot(); err != nil || !used || node == "" {
		return nil, err
	}
	var err error
	if s.lock, err = lockDirectory(st.dir, false); errors.Is(err, errNoDirectory) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer s.end()
	if used, err := s.usedThisBoot(); err != nil || !used {
		return nil, err
	}
	records, _, err := s.read()
	if err != nil {
		return nil, err
	}
	var stale []Lease
	for _, r := range records {
		if s.nodeOf(r.Address) == node && !held(r.Lease) {
			stale = append(stale, r.Lease)
		}
	}
	slices.SortFunc(stale, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	if !end || len(stale) == 0 {
		return stale, nil
	}
	if err := s.prepare(); err != nil { // of this boot, so nothing is swept
		return nil, err
	}
	return s.dropAll(stale)
}

// usedThisBoot says whether this package has worked in the directory since the
// node was started.
func (s *session) usedThisBoot() (bool, error) {
	known, err := s.readState()
	return known != nil && s.bootID != "" && known.boot == s.bootID, err
}
