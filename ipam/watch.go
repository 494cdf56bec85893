// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Change is a lease that came or went.
type Change struct {
	Time    time.Time
	Network string
	Lease
	// Released says that it went.
	Released bool
	// Lost says that the kernel had to drop announcements: this is no change, and
	// what follows was found by looking. The other fields but Time are empty.
	Lost bool
}

// leasesIn reads a network's directory.
func leasesIn(dir string) (map[netip.Addr]Owner, error) {
	records, _, err := (&store{dir: dir}).read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	leases := map[netip.Addr]Owner{}
	for _, r := range records {
		leases[r.Address] = r.Owner
	}
	return leases, nil
}

// leaseWatcher knows the leases that it has told of.
type leaseWatcher struct {
	dataDir string
	fd      int
	tell    func(Change)
	dirs    map[int32]string // by watch; "" is not a network's
	leases  map[string]map[netip.Addr]Owner
}

// What happens to a lease: a file that appears by link(2), one that host-local
// creates and then writes, one that is deleted.
const leaseEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_DELETE | unix.IN_MOVED_FROM

// Watch calls tell for every lease below a data directory that comes or goes,
// until ctx ends. Neither the directory nor those of networks need to exist yet.
// ready is called when nothing can be missed any more.
func Watch(ctx context.Context, dataDir string, ready func(), tell func(Change)) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch leases: %w", err)
	}
	file := os.NewFile(uintptr(fd), "inotify")
	defer func() { _ = file.Close() }() // only read from
	// The descriptor stays open until nothing uses it by its number.
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	w := &leaseWatcher{
		dataDir: filepath.Clean(dataDir), fd: fd, tell: func(Change) {},
		dirs: map[int32]string{}, leases: map[string]map[netip.Addr]Owner{},
	}
	if err := w.arm(); err != nil {
		return err
	}
	w.tell = tell
	ready()
	buffer := make([]byte, 64<<10)
	for {
		n, err := file.Read(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch leases: %w", err)
		}
		if err := w.handle(buffer[:n]); err != nil {
			return err
		}
	}
}

// arm watches the directories that there are, or the nearest that is there of a
// data directory which is not, and finds out what is different.
func (w *leaseWatcher) arm() error {
	for dir, missing := w.dataDir, ""; ; {
		wd, err := unix.InotifyAddWatch(w.fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_ONLYDIR)
		switch {
		case errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir):
			dir, missing = filepath.Dir(dir), dir
			continue
		case err != nil:
			return fmt.Errorf("watch leases in %s: %w", dir, err)
		}
		w.dirs[int32(wd)] = ""
		if _, err := os.Lstat(missing); missing == "" || err != nil {
			break
		}
		dir, missing = w.dataDir, "" // it was made before there was a watch to tell
	}
	networks, err := Networks(w.dataDir)
	if err != nil {
		return err
	}
	for _, network := range networks {
		wd, err := unix.InotifyAddWatch(w.fd, filepath.Join(w.dataDir, network), leaseEvents|unix.IN_ONLYDIR)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("watch leases of %s: %w", network, err)
		}
		w.dirs[int32(wd)] = network
	}
	for network := range w.leases {
		networks = append(networks, network) // perhaps gone
	}
	for _, network := range networks {
		if err := w.compare(network); err != nil {
			return err
		}
	}
	return nil
}

// compare tells what is different in a network's directory.
func (w *leaseWatcher) compare(network string) error {
	now, err := leasesIn(filepath.Join(w.dataDir, network))
	if err != nil {
		return err
	}
	for _, addr := range slices.SortedFunc(maps.Keys(w.leases[network]), netip.Addr.Compare) {
		if _, still := now[addr]; !still {
			w.set(network, addr, Owner{}, false)
		}
	}
	for _, addr := range slices.SortedFunc(maps.Keys(now), netip.Addr.Compare) {
		w.set(network, addr, now[addr], true)
	}
	return nil
}

// set notes who holds an address now.
func (w *leaseWatcher) set(network string, addr netip.Addr, owner Owner, held bool) {
	known := w.leases[network]
	if known == nil {
		known = map[netip.Addr]Owner{}
		w.leases[network] = known
	}
	before, had := known[addr]
	if had && held && before == owner {
		return
	}
	delete(known, addr)
	if had {
		w.tell(Change{Time: time.Now(), Network: network, Lease: Lease{addr, before}, Released: true})
	}
	if held {
		known[addr] = owner
		w.tell(Change{Time: time.Now(), Network: network, Lease: Lease{addr, owner}})
	}
}

// handle takes what one read returned (inotify(7)).
func (w *leaseWatcher) handle(data []byte) error {
	again := false
	for len(data) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(data))
		mask := binary.NativeEndian.Uint32(data[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(data[12:]))
		if size > len(data) {
			break
		}
		name := strings.TrimRight(string(data[unix.SizeofInotifyEvent:size]), "\x00")
		data = data[size:]
		network := w.dirs[wd]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			w.tell(Change{Time: time.Now(), Lost: true})
			again = true
		case mask&unix.IN_IGNORED != 0:
			delete(w.dirs, wd)
			again = true
		case network == "":
			again = true
		default:
			if err := w.read(network, name); err != nil {
				return err
			}
		}
	}
	if again {
		return w.arm()
	}
	return nil
}

// read looks at the one file that something happened to.
func (w *leaseWatcher) read(network, name string) error {
	addr, ok := leaseName(name)
	if !ok {
		return nil
	}
	content, err := readFile(filepath.Join(w.dataDir, network, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	owner, held := parseLease(content)
	w.set(network, addr, owner, err == nil && held)
	return nil
}
