// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotAllSeen says that not every network namespace of the machine can be seen
// from here, so that none can be called dead.
var ErrNotAllSeen = errors.New("not every network namespace can be seen from here")

// StalePaths lists the pins and state of network namespaces that are gone. It
// looks for namespaces at every process, thread and open descriptor and at every
// mount; from another PID namespace than the first, or where it may not look at
// one of them, it returns [ErrNotAllSeen].
func (s Site) StalePaths() ([]string, error) {
	names := map[string][]string{}
	for _, root := range []string{s.runDir(), filepath.Dir(pinRoot(s.bpffs(), "x"))} {
		dirs, err := os.ReadDir(root)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list nodes: %w", err)
		}
		for _, dir := range dirs {
			if dir.IsDir() && isNodeName(dir.Name()) {
				names[dir.Name()] = append(names[dir.Name()], filepath.Join(root, dir.Name()))
			}
		}
	}
	if own, err := NodeName(); err == nil {
		delete(names, own)
	}
	if len(names) == 0 {
		return nil, nil
	}
	alive, err := namespaces()
	if err != nil {
		return nil, err
	}
	var stale []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !alive[name] {
			stale = append(stale, names[name]...)
		}
	}
	return stale, nil
}

// RemoveStale removes what [Site.StalePaths] listed.
func (s Site) RemoveStale(path string) error { return removeTree(path) }

func removeTree(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

func isNodeName(name string) bool {
	digits := strings.TrimPrefix(name, "ino")
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}

// initPIDNamespace is the inode of the first PID namespace (PROC_PID_INIT_INO).
const initPIDNamespace = "pid:[4026531836]"

// initProcess may hide even from root, as the one process. It is in the first
// network namespace, where others are; and what it holds for services has theirs.
const initProcess = "/proc/1/"

// namespaces returns the names of all network namespaces of the machine.
func namespaces() (map[string]bool, error) {
	if own, err := os.Readlink("/proc/self/ns/pid"); err != nil || own != initPIDNamespace {
		return nil, ErrNotAllSeen
	}
	paths := map[string][]string{} // what the link says → paths to it
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/proc/[0-9]*/task/[0-9]*/ns/net", "/proc/[0-9]*/fd/[0-9]*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("list namespaces: %w", err)
		}
		for _, path := range found {
			text, err := os.Readlink(path)
			switch {
			case errors.Is(err, os.ErrPermission) && !strings.HasPrefix(path, initProcess):
				return nil, fmt.Errorf("%w: %w", ErrNotAllSeen, err) // it takes CAP_SYS_PTRACE
			case err == nil && strings.HasPrefix(text, "net:["):
				paths[text] = append(paths[text], path)
			}
		}
	}
	mounted, err := mountedNamespaces()
	if err != nil {
		return nil, err
	}
	for text, more := range mounted {
		paths[text] = append(more, paths[text]...) // first: a mount outlives processes
	}
	return namesOf(paths, mounted)
}

// mountedNamespaces returns the bind mounts of network namespaces in all mount
// namespaces: the root of such a mount is called as the link is.
func mountedNamespaces() (map[string][]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	paths, seen := map[string][]string{}, map[string]bool{}
	for _, file := range files {
		process := filepath.Dir(file)
		mountNS, err := os.Readlink(filepath.Join(process, "ns/mnt"))
		if err != nil || seen[mountNS] {
			continue
		}
		seen[mountNS] = true
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the process ended
		}
		for line := range strings.Lines(string(data)) {
			if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[3], "net:[") {
				paths[fields[3]] = append(paths[fields[3]], filepath.Join(process, "root", fields[4]))
			}
		}
	}
	return paths, nil
}

// namesOf enters each namespace, on a thread that is not used again, and returns
// the names of both kinds that a node can have. One that nothing leads to any
// more has ended, unless it is mounted somewhere.
func namesOf(paths, mounted map[string][]string) (names map[string]bool, err error) {
	names = map[string]bool{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends here
		for text, ways := range paths {
			var refused error
			entered := slices.ContainsFunc(ways, func(path string) bool {
				err := enterNamespace(path, text)
				if errors.Is(err, os.ErrPermission) {
					refused = err
				}
				return err == nil
			})
			switch {
			case !entered && (mounted[text] != nil || refused != nil):
				err = errors.Join(fmt.Errorf("enter %s: %w", text, ErrNotAllSeen), refused)
				return
			case !entered:
				continue
			}
			var name string
			if name, err = NodeName(); err != nil {
				return
			}
			names[name] = true
			if inode, err := inodeName("/proc/thread-self/ns/net"); err == nil {
				names[inode] = true
			}
		}
	}()
	<-done
	return names, err
}

// enterNamespace moves the thread to the namespace at a path, if it is the one
// that it should be.
func enterNamespace(path, text string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer func() { _ = file.Close() }() // nothing was written
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	if now, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || now != text {
		return fmt.Errorf("%s has become %s: %w", path, now, os.ErrNotExist)
	}
	return nil
}

// AddressesOf returns the addresses that are published for a device.
func (n *Node) AddressesOf(index int) ([]netip.Addr, error) {
	endpoints, err := n.endpoints()
	if err != nil {
		return nil, err
	}
	var addresses []netip.Addr
	for addr, ep := range endpoints {
		if ep.IfIndex == index {
			addresses = append(addresses, addr)
		}
	}
	return addresses, nil
}
