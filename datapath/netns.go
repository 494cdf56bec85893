// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// errNoNamespace says that a namespace has neither a name nor a process.
var errNoNamespace = errors.New("no name and no process leads to the container's network namespace")

// Namespace opens the network namespace that the calling thread's one calls by
// this id. The kernel tells ids of namespaces, not the way to them: so it is asked
// about each that has a name in /run/netns or a process.
func Namespace(id int) (*os.File, error) {
	if id < 0 {
		return nil, errNoNamespace
	}
	seen := map[uint64]bool{}
	for _, pattern := range []string{"/run/netns/*", "/run/docker/netns/*", "/proc/[0-9]*/ns/net"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("list namespaces: %w", err)
		}
		for _, path := range paths {
			if file := openNamespace(path, id, seen); file != nil {
				return file, nil
			}
		}
	}
	return nil, errNoNamespace
}

// openNamespace opens a path if it is the namespace with this id, else returns
// nil. What cannot be opened is gone, or not ours to see.
func openNamespace(path string, id int, seen map[uint64]bool) *os.File {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	var stat unix.Stat_t
	if unix.Fstat(int(file.Fd()), &stat) == nil && !seen[stat.Ino] {
		seen[stat.Ino] = true
		if have, err := netlink.GetNetNsIdByFd(int(file.Fd())); err == nil && have == id {
			return file
		}
	}
	_ = file.Close() // only read from
	return nil
}

// ContainerDevice returns the network namespace of an endpoint, to be closed,
// and the index that the container's device has in it.
func (a *Attached) ContainerDevice() (*os.File, int, error) {
	link, err := netlink.LinkByIndex(a.Index)
	if err != nil {
		return nil, 0, fmt.Errorf("find device %s: %w", a.HostDevice, err)
	}
	namespace, err := Namespace(link.Attrs().NetNsID)
	if err != nil {
		return nil, 0, fmt.Errorf("find namespace of %s: %w", a.HostDevice, err)
	}
	return namespace, link.Attrs().ParentIndex, nil
}
