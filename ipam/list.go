// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Listed is a lease as it lies in its directory.
type Listed struct {
	Lease
	// Modified is when the lease was made, by the clock of that time.
	Modified time.Time
	// Earlier says that it was made before the node's last boot. No container
	// has it; the next command that uses the directory frees it.
	Earlier bool
}

// Listing is what a directory of leases holds.
type Listing struct {
	// Network is the directory's name.
	Network string
	// Leases by address.
	Leases []Listed
	// Ours says that this package has worked in the directory; if not, the
	// leases are another plugin's.
	Ours bool
}

// Networks returns the names of the networks that have a directory of leases in
// dataDir, sorted. A dataDir that doesn't exist has none. Errors are *IOError.
func Networks(dataDir string) ([]string, error) {
	entries, err := os.ReadDir(dataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, ioError("read", dataDir, err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, nil // os.ReadDir sorts
}

// List reads the leases in a directory. It changes nothing and takes no lock: a
// lease appears and disappears whole, so what is listed was held at some moment
// of the call. Errors are *IOError.
func List(dir string) (*Listing, error) {
	st := &store{dir: dir, boot: currentBoot}
	return st.list()
}

func (st *store) list() (*Listing, error) {
	listing := &Listing{Network: filepath.Base(st.dir)}
	records, _, err := st.read()
	if err != nil {
		return nil, err
	}
	known, err := st.readState()
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	if info, err := os.Stat(filepath.Join(st.dir, ownName)); err == nil {
		listing.Ours = info.IsDir()
	}
	now := st.boot()
	// Of what this boot's commands have left none is earlier (see sweep).
	swept := known != nil && known.boot == now.id
	for _, r := range records {
		listing.Leases = append(listing.Leases, Listed{
			Lease: r.Lease, Modified: r.modified,
			Earlier: now.id != "" && !swept && r.modified.Before(now.started),
		})
	}
	slices.SortFunc(listing.Leases, func(a, b Listed) int { return a.Address.Compare(b.Address) })
	return listing, nil
}
