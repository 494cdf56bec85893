// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mountBPFFS makes sure that there is a bpffs, and mounts one where there is
// none. Two processes that mounted at once would put one bpffs over the other,
// so the mount point itself is the lock: whoever opened it before the mount
// waits, whoever opens it after sees a bpffs.
func (s Site) mountBPFFS() error {
	path := s.bpffs()
	if isBPFFS(path) {
		return nil
	}
	if err := mountOnce(path); err != nil {
		return &BPFFSError{Path: path, Err: err}
	}
	return nil
}

func mountOnce(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // nothing was written
	if err := flock(dir, unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock mount point: %w", err)
	}
	if isBPFFS(path) {
		return nil
	}
	if err := unix.Mount("bpf", path, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	return nil
}

func isBPFFS(path string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(path, &stat) == nil && stat.Type == unix.BPF_FS_MAGIC
}

// pin makes the set the pinned one. Where its maps are pinned already only the
// program's pin changes, by one rename; else a whole directory is built beside
// the old one and takes its place. Both under the exclusive lock.
func (n *Node) pin(s *set) error {
	dir := n.pinDir()
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return &BPFFSError{Path: n.site.bpffs(), Err: err}
	}
	if err := n.repin(s, dir); err != nil {
		return &BPFFSError{Path: n.site.bpffs(), Err: err}
	}
	return nil
}

func (n *Node) repin(s *set, dir string) error {
	if s.pinned(dir) {
		return s.pinPrograms(dir)
	}
	next := nextName(dir)
	if err := os.RemoveAll(next); err != nil {
		return fmt.Errorf("remove unfinished pins: %w", err)
	}
	if err := os.Mkdir(next, 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	if err := s.pinAll(next); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	// Nobody loses anything between these two steps: the descriptors are open,
	// and a process that finds no pins waits for the lock.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove old pins: %w", err)
	}
	if err := os.Rename(next, dir); err != nil {
		return fmt.Errorf("publish pins: %w", err)
	}
	return nil
}

func (s *set) pinAll(dir string) error {
	maps, release, err := s.openMaps()
	if err != nil {
		return err
	}
	defer release()
	for name, m := range maps {
		if err := m.Pin(pinPath(dir, name)); err != nil {
			return fmt.Errorf("pin map %q: %w", name, err)
		}
	}
	return s.pinPrograms(dir)
}

// pinPrograms pins each program or replaces its pin, in one step each. Versions
// that are mixed for a moment use the same maps.
func (s *set) pinPrograms(dir string) error {
	for _, m := range s.members() {
		path := pinPath(dir, m.info.name)
		if err := os.RemoveAll(nextName(path)); err != nil {
			return fmt.Errorf("remove unfinished pin: %w", err)
		}
		if err := m.pin(nextName(path)); err != nil {
			return err
		}
		if err := os.Rename(nextName(path), path); err != nil {
			return fmt.Errorf("publish program pin: %w", err)
		}
	}
	return nil
}

// pin pins a duplicate, since pinning what is pinned moves the pin.
func (m *member) pin(path string) error {
	p, err := m.program.Clone()
	if err != nil {
		return fmt.Errorf("duplicate program: %w", err)
	}
	if err := errors.Join(p.Pin(path), p.Close()); err != nil {
		return fmt.Errorf("pin program: %w", err)
	}
	return nil
}
