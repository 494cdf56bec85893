// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// needs is the annotation of a command with the capabilities that it cannot do
// without, separated by blanks.
const needs = "needs"

// Capabilities of commands. Programs and maps are shown by their ids to
// CAP_SYS_ADMIN only (bpf_prog_get_fd_by_id), and without it endpoints would seem
// to have somebody else's programs; pins, locks and leases are root's, and whoever
// does not see the pins would take ours for another version's. A capture enters the
// container's namespace (CAP_SYS_ADMIN) and opens a packet socket there.
const (
	needsRoot      = "CAP_BPF CAP_DAC_OVERRIDE CAP_NET_ADMIN CAP_SYS_ADMIN"
	needsToCapture = "CAP_NET_RAW CAP_SYS_ADMIN"
)

var capabilityBits = map[string]uint{
	"CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE,
	"CAP_NET_ADMIN":    unix.CAP_NET_ADMIN,
	"CAP_NET_RAW":      unix.CAP_NET_RAW,
	"CAP_SYS_ADMIN":    unix.CAP_SYS_ADMIN,
	"CAP_BPF":          unix.CAP_BPF,
}

// privilegeError says what a command would need.
type privilegeError struct {
	command string
	missing []string
}

func (e *privilegeError) Error() string {
	return fmt.Sprintf("%s needs %s", e.command, strings.Join(e.missing, ", "))
}

// Is makes it a refusal like the kernel's own.
func (e *privilegeError) Is(target error) bool { return target == fs.ErrPermission }

// checkPrivileges returns a [privilegeError] if the process lacks what the
// command is annotated with. CAP_SYS_ADMIN includes CAP_BPF (capabilities(7)), and
// root needs none for its own files.
func checkPrivileges(c *cobra.Command) error {
	wanted := strings.Fields(c.Annotations[needs])
	if len(wanted) == 0 {
		return nil
	}
	have, err := effectiveCapabilities()
	if err != nil {
		return err
	}
	if have&(1<<unix.CAP_SYS_ADMIN) != 0 {
		have |= 1 << unix.CAP_BPF
	}
	if os.Geteuid() == 0 {
		have |= 1 << unix.CAP_DAC_OVERRIDE
	}
	var missing []string
	for _, name := range wanted {
		if have&(1<<capabilityBits[name]) == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return &privilegeError{strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" "), missing}
	}
	return nil
}

func effectiveCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}
