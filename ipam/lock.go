// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errNoDirectory says that a pool's directory doesn't exist: nobody has ever
// leased an address from it.
var errNoDirectory = errors.New("no lease directory")

// lockName and lockMode are host-local's.
const (
	lockName = "lock"
	lockMode = 0o750
)

// dirLock is an exclusive flock(2) on a pool's lock file. The kernel drops it
// when the process dies.
type dirLock int

// lockDirectory waits for the lock of the directory. A directory that doesn't
// exist is made if create is true, else the error is errNoDirectory. Other
// errors are *IOError.
func lockDirectory(dir string, create bool) (dirLock, error) {
	path := filepath.Join(dir, lockName)
	for {
		fd, err := open(path, unix.O_CREAT|unix.O_RDONLY, lockMode)
		if errors.Is(err, unix.ENOENT) {
			if !create {
				return -1, errNoDirectory
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return -1, ioError("mkdir", dir, err)
			}
			continue
		}
		if err != nil {
			return -1, ioError("open", path, err)
		}
		if err := flock(fd); err != nil {
			_ = unix.Close(fd)
			return -1, ioError("flock", path, err)
		}
		// The directory may have been emptied by hand while we waited. Then this
		// is the lock of a file that nobody else will ever open.
		if isFile(fd, path) {
			return dirLock(fd), nil
		}
		_ = unix.Close(fd)
	}
}

// release gives the lock back. Closing can't fail in a way that keeps it.
func (l dirLock) release() { _ = unix.Close(int(l)) }

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// isFile tells whether the open file is the one that has this name now.
func isFile(fd int, path string) bool {
	var opened, named unix.Stat_t
	return unix.Fstat(fd, &opened) == nil && unix.Stat(path, &named) == nil &&
		opened.Dev == named.Dev && opened.Ino == named.Ino
}
