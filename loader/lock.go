// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockPatience is how long a lock is waited for. Its holders never wait for
// anything but the kernel, so a longer wait means a stopped process.
var lockPatience = 10 * time.Second

// lockFile opens a file and locks it, shared or exclusively. The lock ends with
// the file's Close, and with its holder. Its directory is made by the first who
// locks: who only looks leaves nothing. Returns ErrBusy after lockPatience.
func lockFile(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("make lock directory: %w", err)
		}
		file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := flock(file, how); err != nil {
		_ = file.Close() // nothing was written
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return file, nil
}

// flock polls, because a blocking flock cannot be given up: with SIGKILL
// excepted there is no way to end it from another goroutine.
func flock(file *os.File, how int) error {
	deadline := time.Now().Add(lockPatience)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return err
		case time.Now().After(deadline):
			return ErrBusy
		}
		time.Sleep(pause)
	}
}
