// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// layoutVersion names the layout of the maps. A change that an older program
// cannot live with takes the next number, and so another directory.
const layoutVersion = "v4"

// Site says where the state of nodes is kept and how programs are attached.
// The zero value is the one to use; tests have others.
type Site struct {
	// RunDir holds the lock files and records of nodes. Optional: /run/zipline.
	RunDir string
	// BPFFS is the mount point of the bpffs. Optional: /sys/fs/bpf.
	BPFFS string
	// ForceClsact attaches by clsact where the kernel has TCX too.
	ForceClsact bool
}

// NodeDir returns the directory of the node's lock files, usually
// /run/zipline/<netns cookie>, and makes it if need be.
func NodeDir() (string, error) { return Site{}.NodeDir() }

// NodeDir returns the directory of the node's lock files and makes it if need be.
func (s Site) NodeDir() (string, error) {
	n, err := s.node()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return "", fmt.Errorf("make node directory: %w", err)
	}
	return n.dir, nil
}

func (s Site) runDir() string {
	if s.RunDir == "" {
		return "/run/zipline"
	}
	return s.RunDir
}

func (s Site) bpffs() string {
	if s.BPFFS == "" {
		return "/sys/fs/bpf"
	}
	return s.BPFFS
}

// nodeDir returns the state directory of a node, as /run/zipline/4711.
func nodeDir(base, node string) string { return filepath.Join(base, node) }

// lockPath returns the file that is locked shared to attach programs and
// exclusively to publish them, as /run/zipline/4711/programs.lock.
func lockPath(dir string) string { return filepath.Join(dir, "programs.lock") }

// mapLockPath returns the file that is locked to change map entries, as
// /run/zipline/4711/maps.lock.
func mapLockPath(dir string) string { return filepath.Join(dir, "maps.lock") }

// recordPath returns the file that says what was published, as
// /run/zipline/4711/programs.
func recordPath(dir string) string { return filepath.Join(dir, "programs") }

// pinRoot returns the directory of all pins of a node, as /sys/fs/bpf/zipline/4711.
func pinRoot(bpffs, node string) string { return filepath.Join(bpffs, "zipline", node) }

// pinDir returns the directory of the pins of this layout, as
// /sys/fs/bpf/zipline/4711/v4.
func pinDir(bpffs, node string) string { return filepath.Join(pinRoot(bpffs, node), layoutVersion) }

// nextName returns the name under which a pin or a directory of pins is built
// before it is renamed to its own. bpffs allows no dots.
func nextName(path string) string { return path + "-next" }

// NodeName identifies the network namespace of the calling thread: its cookie,
// which no other namespace of this boot ever has. Kernels before 5.14 give no
// cookie; there it is the inode number, which is unique as long as the
// namespace lives.
func NodeName() (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err == nil {
		return strconv.FormatUint(cookie, 10), nil
	}
	if err != unix.ENOPROTOOPT {
		return "", fmt.Errorf("get netns cookie: %w", err)
	}
	return inodeName("/proc/thread-self/ns/net")
}

func inodeName(path string) (string, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return "", fmt.Errorf("stat %s: %w", path, err)
	}
	return "ino" + strconv.FormatUint(stat.Ino, 10), nil
}

// pinPath returns the pin of a program or map, as …/v4/endpoints.
func pinPath(dir, name string) string { return filepath.Join(dir, name) }
