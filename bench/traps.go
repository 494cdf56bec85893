// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Where traps are, in the node's own /run.
const (
	trapDir = "/run/zipline-bench/traps"
	trapLog = "/run/zipline-bench/sprung"
)

// Trapped are the programs that a plugin must not execute.
var Trapped = []string{
	"nft", "ip", "iptables", "iptables-nft", "iptables-legacy", "iptables-save", "iptables-restore",
	"ip6tables", "ip6tables-nft", "ip6tables-legacy", "ip6tables-save", "ip6tables-restore",
	"tc", "sysctl", "bridge", "ipset", "ebtables", "arptables", "conntrack", "bpftool", "modprobe", "sh", "host-local",
}

// programDirs are the directories where an absolute path could find a program.
var programDirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// trap is a program that notes how it was called and fails. It needs no other
// program: the shell that runs it is kept under a name of its own.
const trap = "#!" + trapShell + "\necho \"$0 $*\" >>" + trapLog + "\nexit 1\n"

const trapShell = "/run/zipline-bench/shell"

// setTraps makes trapDir with a trap of each name, and covers every program of
// that name in the usual directories by it, in this mount namespace only. A
// program that is executed by its name or by its path is noted either way.
func setTraps(names []string) error {
	if err := os.MkdirAll(trapDir, 0o755); err != nil {
		return fmt.Errorf("set traps: %w", err)
	}
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		return fmt.Errorf("set traps: %w", err)
	}
	if err := os.WriteFile(trapShell, shell, 0o755); err != nil {
		return fmt.Errorf("set traps: %w", err)
	}
	for _, name := range names {
		path := filepath.Join(trapDir, name)
		if err := os.WriteFile(path, []byte(trap), 0o755); err != nil {
			return fmt.Errorf("set traps: %w", err)
		}
		for _, dir := range programDirs {
			err := unix.Mount(path, filepath.Join(dir, name), "", unix.MS_BIND, "")
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("cover %s: %w", filepath.Join(dir, name), err)
			}
		}
	}
	return nil
}

// sprungTraps returns the command lines that met a trap.
func sprungTraps() ([]string, error) {
	text, err := os.ReadFile(trapLog)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read sprung traps: %w", err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n"), nil
}
