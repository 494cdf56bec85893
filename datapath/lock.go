// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/loader"
)

// NodeName names the node that the calling thread is in: its network namespace,
// as its state directory is called.
func NodeName() (string, error) { return loader.NodeName() }

// lockSubnet takes the lock of a subnet of this node. Attachments share it
// while they make what the subnet has once (the guard route, the ruleset's
// elements of the network); the removal that finds itself the last takes it
// exclusively. It is never held while another program runs. The lock ends
// with the returned file's Close.
func lockSubnet(subnet netip.Prefix, exclusive bool) (*os.File, error) {
	name := "subnet-" + strings.NewReplacer("/", "_", ":", "-").Replace(subnet.String())
	return lockFile(name, exclusive)
}

// lockNode takes the lock under which the ruleset is installed.
func lockNode() (*os.File, error) { return lockFile("ruleset", true) }

func lockFile(name string, exclusive bool) (*os.File, error) {
	dir, err := loader.NodeDir()
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_RDONLY|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	if err := waitLock(file, how); err != nil {
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return file, nil
}

// lockPatience is how long a lock is waited for. Its holders wait for nothing but
// the kernel and the locks after it, so only one that was stopped (SIGSTOP, a
// frozen cgroup) keeps it for longer. Runtimes give a call some minutes.
var lockPatience = 30 * time.Second

// waitLock waits for a lock in the kernel, which hands it on at once: removals run
// many at a time. A wait cannot be broken off, so one that took too long goes on
// by itself, and gives the lock back. The file is closed after an error, which is
// [ErrBusy] then.
func waitLock(file *os.File, how int) error {
	if flock(file, how|unix.LOCK_NB) == nil {
		return nil
	}
	locked := make(chan error, 1)
	go func() { locked <- flock(file, how) }()
	timer := time.NewTimer(lockPatience)
	defer timer.Stop()
	select {
	case err := <-locked:
		if err != nil {
			_ = file.Close() // nothing was written
		}
		return err
	case <-timer.C:
		go func() { <-locked; _ = file.Close() }()
		return ErrBusy
	}
}

func flock(file *os.File, how int) error {
	for {
		if err := unix.Flock(int(file.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}
