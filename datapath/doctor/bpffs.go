// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

var bpffsChecks = []Check{
	{"bpffs", topicBPFFS, "a bpffs is mounted at /sys/fs/bpf, and can be written", "not mounted (info), of another type, or read-only", checkBPFFS},
	{"bpffs-lifetime", topicBPFFS, "the machine's first process has the same bpffs", "pins end with this command's mounts (`ip netns exec`)", checkLifetime},
	{"state-directory", topicBPFFS, "/run/zipline can be written", "it cannot: no locks, no ADD", checkStateDirectory},
}

const bpffsPath = "/sys/fs/bpf"

// errNotMounted says that there is no bpffs yet. ADD mounts one.
var errNotMounted = errors.New("no bpffs is mounted at " + bpffsPath)

// tryBPFFS makes and removes a directory. It mounts nothing.
func (n *node) tryBPFFS() error {
	var stat unix.Statfs_t
	if err := unix.Statfs(bpffsPath, &stat); err != nil {
		return fmt.Errorf("look at %s: %w", bpffsPath, err)
	}
	if stat.Type == unix.SYSFS_MAGIC {
		return errNotMounted
	}
	if stat.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("what is mounted at %s is no bpffs (type %#x)", bpffsPath, stat.Type)
	}
	dir, err := os.MkdirTemp(bpffsPath, "zipline-doctor-")
	if err == nil {
		err = os.Remove(dir)
	}
	if err != nil {
		return fmt.Errorf("write to %s: %w", bpffsPath, err)
	}
	return nil
}

func checkBPFFS(n *node) []Finding {
	err := n.bpffs()
	if errors.Is(err, errNotMounted) {
		return []Finding{{
			Level: Info, Found: err.Error(), Means: "the first ADD mounts one",
			Mend: "mount -t bpf bpf " + bpffsPath,
		}}
	}
	bad := Finding{
		Level: Warning, Means: "programs cannot be kept: the kernel forwards everything (tier kernel)",
		Mend: "umount " + bpffsPath + "; mount -t bpf bpf " + bpffsPath,
	}
	if errors.Is(err, unix.EROFS) {
		bad.Mend = "mount -o remount,rw " + bpffsPath
	}
	return wanting(err, "a bpffs that can be written", bad)
}

// checkLifetime compares the bpffs with those of the machine's first process. "ip
// netns exec" mounts /sys anew for each command, and a bpffs that somebody mounts
// there ends with it.
func checkLifetime(n *node) []Finding {
	own, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return skipped(err)
	}
	device := mountOf(string(own), bpffsPath)
	if device == "" {
		return ok("no bpffs is mounted yet")
	}
	first, err := os.ReadFile(n.path("/proc/1/mountinfo"))
	if err != nil {
		return skipped(err)
	}
	if hasMount(string(first), device) {
		return ok("it is the bpffs of the machine's first process")
	}
	return []Finding{{
		Level: Warning, Found: "the bpffs at " + bpffsPath + " is this command's own (a mount namespace such as that of ip netns exec)",
		Means:  "what is pinned there is gone with the mount; zipline then finds its maps again by the programs on its devices",
		Advice: "run commands by nsenter --net=/run/netns/NAME, which leaves the mounts alone, in place of ip netns exec NAME",
	}}
}

// mountOf returns the device ("0:31") of what is mounted at a path last, if it is
// a bpffs: proc_pid_mountinfo(5).
func mountOf(mountinfo, path string) (device string) {
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) > 4 && fields[4] == path {
			device = ""
			if strings.Contains(line, " - bpf ") {
				device = fields[2]
			}
		}
	}
	return device
}

func hasMount(mountinfo, device string) bool {
	for line := range strings.Lines(mountinfo) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[2] == device && strings.Contains(line, " - bpf ") {
			return true
		}
	}
	return false
}

// checkStateDirectory asks about the parent of what ADD makes there.
func checkStateDirectory(*node) []Finding {
	dir := "/run/zipline"
	if _, err := os.Stat(dir); err != nil {
		dir = "/run"
	}
	err := unix.Access(dir, unix.W_OK)
	switch {
	case err == nil:
		return ok("%s can be written", dir)
	case errors.Is(err, unix.EACCES) && os.Geteuid() != 0:
		return skipped(errUnprivileged)
	}
	return []Finding{{
		Level: Problem, Found: fmt.Sprintf("%s cannot be written: %v", dir, err),
		Means: "an ADD needs its lock files there", Mend: remount(dir),
	}}
}
