// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NetnsPlace is where a network namespace can be entered.
type NetnsPlace struct {
	// Inode is the namespace's number, as in "net:[4026532000]"; 0 for none found.
	Inode uint64
	// Path is a file that the namespace is bound to, PID a process in it; "" and
	// 0 where there is none to be seen.
	Path string
	PID  int
}

// file is what to open, "" for nothing.
func (p NetnsPlace) file() string {
	if p.Path == "" && p.PID != 0 {
		return processNetns(p.PID)
	}
	return p.Path
}

func processNetns(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/ns/net" }

// errNoNamespace says that a namespace has neither a name nor a process.
var errNoNamespace = errors.New("no name and no process leads to the container's network namespace")

// ContainerDevice returns the network namespace of an endpoint, to be closed,
// and the index that the container's device has in it.
func (a *Attached) ContainerDevice() (*os.File, int, error) {
	path := findNetns([]int{a.NetnsID})[a.NetnsID].file()
	if path == "" {
		return nil, 0, fmt.Errorf("find namespace of %s: %w", a.HostDevice, errNoNamespace)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open namespace of %s: %w", a.HostDevice, err)
	}
	// The process may have ended since, and another have its number.
	if id, err := netlink.GetNetNsIdByFd(int(file.Fd())); err != nil || id != a.NetnsID {
		_ = file.Close() // the wrong one
		return nil, 0, fmt.Errorf("find namespace of %s: %w", a.HostDevice, errNoNamespace)
	}
	return file, a.PeerIndex, nil
}

// netnsDirs are where runtimes bind namespaces to files.
var netnsDirs = []string{"/run/netns", "/var/run/netns", "/run/docker/netns", "/var/run/docker/netns"}

// findNetns looks for the namespaces with these ids (RTM_GETNSID): among the
// files of the usual directories, then among the processes. Only what this
// process's mounts and PID namespace show can be found, so it is an aid for
// people and never an error. Each namespace is asked for its id once; all else
// is one stat for each file and process, and no process is looked at when the
// files had them all.
func findNetns(ids []int) map[int]NetnsPlace {
	f := &netnsFinder{missing: map[int]bool{}, ids: map[uint64]int{}, found: map[int]NetnsPlace{}}
	for _, id := range ids {
		if id >= 0 {
			f.missing[id] = true
		}
	}
	for _, dir := range netnsDirs {
		files, err := os.ReadDir(dir)
		if err != nil {
			continue // most machines have only one of them
		}
		for _, file := range files {
			f.visit(filepath.Join(dir, file.Name()), 0)
		}
	}
	for _, pid := range pids() {
		if len(f.missing) == 0 {
			break
		}
		f.visit(processNetns(pid), pid)
	}
	return f.found
}

func pids() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }() // only read from
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var list []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			list = append(list, pid)
		}
	}
	slices.Sort(list) // a container's first process has its lowest number
	return list
}

type netnsFinder struct {
	missing map[int]bool   // ids that are still looked for
	ids     map[uint64]int // by inode; -1 = none that was asked for
	found   map[int]NetnsPlace
}

// visit looks at a file that may be a namespace; pid is 0 for one that is not a
// process's.
func (f *netnsFinder) visit(path string, pid int) {
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil {
		return
	}
	if _, ok := f.ids[stat.Ino]; ok {
		return
	}
	id := netnsID(path)
	if pid == 0 && id < 0 {
		return // perhaps no namespace at all, so the number may be another file system's
	}
	f.ids[stat.Ino] = id
	if !f.missing[id] {
		return
	}
	delete(f.missing, id)
	place := NetnsPlace{Inode: stat.Ino, PID: pid}
	if pid == 0 {
		place.Path = path
	}
	f.found[id] = place
}

// netnsID returns the id that the thread's namespace has for that of a file, -1
// for none.
func netnsID(path string) int {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	id, err := netlink.GetNetNsIdByFd(fd)
	if err != nil {
		return -1
	}
	return id
}
