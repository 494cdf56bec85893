// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The index leads from an owner to its leases without reading them all. It is a
// directory of symbolic links: <key of the owner>.<n> leads to a lease file. The
// numbers of one owner are 0, 1, 2 and so on without a gap, one per lease.
//
// Links, because host-local reads every file below the directory and removes
// those with the content that it looks for: it reads a lease through its link,
// and so removes both.

// indexKey names the owner in the index. The length of a container id is not
// bounded, that of a file name is.
func indexKey(o Owner) string {
	sum := sha256.Sum256([]byte(o.ContainerID + "\x00" + o.IfName))
	return hex.EncodeToString(sum[:16])
}

func indexName(key string, n int) string { return key + "." + strconv.Itoa(n) }

func indexTarget(addr netip.Addr) string { return "../../" + addr.String() }

// indexEntry is a link of the index.
type indexEntry struct {
	name string // of the link
	key  string // of the owner
	addr netip.Addr
	made time.Time
}

// slots yields the owner's links. A link that leads nowhere sensible has the
// zero address.
func (s *session) slots(o Owner) ([]indexEntry, error) {
	key := indexKey(o)
	var entries []indexEntry
	for n := 0; ; n++ {
		name := indexName(key, n)
		target, err := os.Readlink(filepath.Join(s.owners(), name))
		if errors.Is(err, fs.ErrNotExist) {
			return entries, nil
		}
		if err != nil {
			return nil, ioError("readlink", name, err)
		}
		addr, _ := leaseName(path.Base(target))
		entries = append(entries, indexEntry{name: name, key: key, addr: addr})
	}
}

// lookup returns the addresses that the owner holds by the index, each of which
// was found true by its lease file. It returns false if an entry was not: then
// somebody has changed leases in place and the index can't be relied on.
func (s *session) lookup(o Owner) ([]netip.Addr, bool, error) {
	entries, err := s.slots(o)
	if err != nil {
		return nil, false, err
	}
	var addrs []netip.Addr
	sound := true
	for _, entry := range entries {
		owner, ok, err := s.readLease(entry.addr)
		if err != nil {
			return nil, false, err
		}
		if !ok || owner != o {
			sound = false
			continue
		}
		addrs = append(addrs, entry.addr)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), sound, nil
}

// enter adds a lease to the index with the first free number from n on, and
// returns the one behind it.
func (s *session) enter(l Lease, n int) (int, error) {
	key := indexKey(l.Owner)
	for ; ; n++ {
		err := s.symlink(indexTarget(l.Address), filepath.Join(s.owners(), indexName(key, n)))
		if !errors.Is(err, fs.ErrExist) {
			return n + 1, err
		}
	}
}

// leave removes a lease from the index. The owner's last link takes its place, so
// that no number becomes a gap.
func (s *session) leave(l Lease) error {
	entries, err := s.slots(l.Owner)
	if err != nil || len(entries) == 0 {
		return err
	}
	last := filepath.Join(s.owners(), entries[len(entries)-1].name)
	for _, entry := range entries {
		if entry.addr != l.Address {
			continue
		}
		if path := filepath.Join(s.owners(), entry.name); path != last {
			return s.rename(last, path)
		}
		return s.remove(last)
	}
	return nil
}

// readIndex returns every link of the index.
func (s *session) readIndex() ([]indexEntry, error) {
	files, err := os.ReadDir(s.owners())
	if err != nil {
		return nil, ioError("read", s.owners(), err)
	}
	entries := make([]indexEntry, 0, len(files))
	for _, file := range files {
		entry := indexEntry{name: file.Name()}
		if info, err := file.Info(); err == nil {
			entry.made = info.ModTime()
		}
		entry.key, _, _ = strings.Cut(entry.name, ".")
		if target, err := os.Readlink(filepath.Join(s.owners(), entry.name)); err == nil {
			entry.addr, _ = leaseName(path.Base(target))
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// rebuild makes the index that of these leases. The entries are those it has.
func (s *session) rebuild(records []record, entries []indexEntry) error {
	type place struct {
		key  string
		addr netip.Addr
	}
	missing := make(map[place]Lease, len(records))
	for _, r := range records {
		missing[place{indexKey(r.Owner), r.Address}] = r.Lease
	}
	numbers := map[string]int{} // the next of each owner
	for _, entry := range entries {
		at := place{entry.key, entry.addr}
		if _, ok := missing[at]; ok && entry.name == indexName(at.key, numbers[at.key]) {
			delete(missing, at)
			numbers[at.key]++
			continue
		}
		if err := s.removeAll(filepath.Join(s.owners(), entry.name)); err != nil {
			return err
		}
	}
	for at, lease := range missing {
		n, err := s.enter(lease, numbers[at.key])
		if err != nil {
			return err
		}
		numbers[at.key] = n
	}
	return nil
}
