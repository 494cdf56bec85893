// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

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
	for {
		err = unix.Flock(int(file.Fd()), how)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return file, nil
}
