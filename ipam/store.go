// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Names in a pool's directory. host-local reads the files among them as leases;
// none has a name that is an address or a content that is an owner, except for a
// lease that is being made.
const (
	lastPrefix = "last_reserved_ip."
	ownName    = ".zipline"
	stateName  = "state"  // in ownName
	ownersName = "owners" // in ownName: the index
	// tempName is in the index, whose stamp shows that it was left there. One is
	// enough, the lock is held.
	tempName = "new"
)

// fileMode is host-local's for leases.
const fileMode = 0o600

// store is a pool's directory.
type store struct {
	dir  string
	boot func() boot
	// step, if set, is called before every change on disk. Tests die in it.
	step func(change string)
}

// session is a store whose lock is held. Its index is complete.
type session struct {
	*store
	lock    dirLock
	bootID  string
	changed bool
}

// record is a lease and when its file was written.
type record struct {
	Lease
	modified time.Time
}

// begin takes the lock, sweeps the leases of an earlier boot and brings the
// index up to date if anybody else has been here. The caller must call end. A
// directory that doesn't exist is made if create is true, else the error is
// errNoDirectory. Other errors are *IOError.
func (st *store) begin(create bool) (*session, error) {
	lock, err := lockDirectory(st.dir, create)
	if err != nil {
		return nil, err
	}
	ready := false
	defer func() {
		if !ready {
			lock.release()
		}
	}()
	s := &session{store: st, lock: lock}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	ready = true
	return s, nil
}

func (s *session) prepare() error {
	found, err := s.readState()
	if err != nil {
		return err
	}
	s.bootID = s.boot().id
	if found != nil && found.boot == s.bootID && s.isStamped(found.stamp) {
		return nil
	}
	return s.refresh(found)
}

// end stamps the directory if it was changed, and gives the lock back.
func (s *session) end() {
	defer s.lock.release()
	if s.changed && s.bootID != "" {
		s.stamp()
	}
}

// refresh looks through the whole directory: it sweeps earlier boots' leases if
// found, the state, is not of this boot, removes what killed processes left, and
// makes the index complete.
func (s *session) refresh(found *state) error {
	s.changed = true
	if err := s.mkdir(filepath.Join(s.dir, ownName)); err != nil {
		return err
	}
	if err := s.mkdir(s.owners()); err != nil {
		return err
	}
	records, err := s.scan()
	if err != nil {
		return err
	}
	entries, err := s.readIndex()
	if err != nil {
		return err
	}
	if s.bootID != "" && (found == nil || found.boot != s.bootID) {
		if records, err = s.sweep(records, entries, found); err != nil {
			return err
		}
		// Before this boot's leases enter the index: what an index of another
		// boot has in it is swept.
		if err := s.writeState(state{boot: s.bootID}); err != nil {
			return err
		}
	}
	return s.rebuild(records, entries)
}

// scan reads every lease. Files that are no lease because nobody is named in
// them are removed: their writer died, for the lock is ours.
func (s *session) scan() ([]record, error) {
	records, nobodys, err := s.read()
	if err != nil {
		return nil, err
	}
	for _, addr := range nobodys {
		if err := s.removeAll(s.path(addr)); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// read reads every lease, and returns the addresses whose files name nobody.
func (st *store) read() (records []record, nobodys []netip.Addr, err error) {
	files, err := os.ReadDir(st.dir)
	if err != nil {
		return nil, nil, ioError("read", st.dir, err)
	}
	for _, file := range files {
		addr, ok := leaseName(file.Name())
		if !ok || !file.Type().IsRegular() {
			continue
		}
		info, err := file.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // released meanwhile
		}
		if err != nil {
			return nil, nil, ioError("stat", file.Name(), err)
		}
		owner, ok, err := st.readLease(addr)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			nobodys = append(nobodys, addr)
			continue
		}
		records = append(records, record{Lease{addr, owner}, info.ModTime()})
	}
	return records, nobodys, nil
}

// dropAll ends leases and returns those that it has ended. It goes on after an
// error.
func (s *session) dropAll(leases []Lease) (dropped []Lease, err error) {
	var errs []error
	for _, lease := range leases {
		if err := s.drop(lease); err != nil {
			errs = append(errs, err)
			continue
		}
		dropped = append(dropped, lease)
	}
	return dropped, errors.Join(errs...)
}

// held returns the leases of the owner or, if it has none, those of its
// container in the older format.
func (s *session) held(o Owner) ([]Lease, error) {
	leases, err := s.heldExactly(o)
	if err != nil || len(leases) > 0 || o.IfName == "" {
		return leases, err
	}
	return s.heldExactly(o.container())
}

func (s *session) heldExactly(o Owner) ([]Lease, error) {
	addrs, sound, err := s.lookup(o)
	if err == nil && !sound {
		if err = s.refresh(&state{boot: s.bootID}); err == nil {
			addrs, _, err = s.lookup(o)
		}
	}
	if err != nil {
		return nil, err
	}
	leases := make([]Lease, len(addrs))
	for i, addr := range addrs {
		leases[i] = Lease{addr, o}
	}
	return leases, nil
}

// readLease returns who holds the address, and false if nobody does.
func (st *store) readLease(addr netip.Addr) (Owner, bool, error) {
	if !addr.IsValid() {
		return Owner{}, false, nil
	}
	content, err := readFile(st.path(addr))
	if errors.Is(err, fs.ErrNotExist) {
		return Owner{}, false, nil
	}
	if err != nil {
		return Owner{}, false, err
	}
	owner, ok := parseLease(content)
	return owner, ok, nil
}

// isFree tells whether the address can be leased. An empty file is removed.
func (s *session) isFree(addr netip.Addr) (bool, error) {
	info, err := os.Lstat(s.path(addr))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, ioError("stat", s.path(addr), err)
	}
	if !info.Mode().IsRegular() || info.Size() > 0 {
		return false, nil
	}
	return true, s.removeAll(s.path(addr))
}

// add makes a lease. Its index entry appears before it, so that no process can be
// killed with a lease that the index doesn't have, and after it was written, see
// sweep. The file appears whole, by link(2), which also refuses to replace one.
func (s *session) add(l Lease, node string) error {
	if err := s.write(s.temp(), formatLease(l.Owner)); err != nil {
		return err
	}
	s.mark(s.temp(), node)
	if _, err := s.enter(l, 0); err != nil {
		return err
	}
	if err := s.link(s.temp(), s.path(l.Address)); err != nil {
		return err
	}
	return s.remove(s.temp())
}

// drop ends a lease, if the owner has it.
func (s *session) drop(l Lease) error {
	owner, ok, err := s.readLease(l.Address)
	if err != nil {
		return err
	}
	if ok && owner == l.Owner {
		if err := s.remove(s.path(l.Address)); err != nil {
			return err
		}
	}
	return s.leave(l)
}

// last returns the address that was last leased from range set i, or the zero
// Addr if none was or the file is of no use: only the order suffers.
func (s *session) last(i int) netip.Addr {
	content, err := readFile(filepath.Join(s.dir, lastPrefix+strconv.Itoa(i)))
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := parseAddr(string(content))
	return addr
}

// setLast overwrites the file in place. A new file renamed over it is written to
// disk at once by ext4 (its option auto_da_alloc), which takes longer than all the
// rest of a lease. A process that dies between the two steps leaves another
// address: that costs the order, no more.
func (s *session) setLast(i int, addr netip.Addr) error {
	return s.overwrite(filepath.Join(s.dir, lastPrefix+strconv.Itoa(i)), []byte(addr.String()))
}

// taken returns every address that has a file.
func (s *session) taken() (map[netip.Addr]struct{}, error) {
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, ioError("open", s.dir, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, ioError("read", s.dir, err)
	}
	addrs := make(map[netip.Addr]struct{}, len(names))
	for _, name := range names {
		if addr, ok := leaseName(name); ok {
			addrs[addr] = struct{}{}
		}
	}
	return addrs, nil
}

func (st *store) path(addr netip.Addr) string { return filepath.Join(st.dir, addr.String()) }
func (st *store) owners() string              { return filepath.Join(st.dir, ownName, ownersName) }
func (st *store) temp() string                { return filepath.Join(st.owners(), tempName) }
func (st *store) state() string               { return filepath.Join(st.dir, ownName, stateName) }

// usable tells whether the directory can be written to or, where it doesn't exist
// yet, made.
func (st *store) usable() error {
	for dir := st.dir; ; dir = filepath.Dir(dir) {
		err := unix.Access(dir, unix.W_OK|unix.X_OK)
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return ioError("access", dir, err)
		}
	}
}
