// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// boot is one run of the kernel.
type boot struct {
	// id is the kernel's random name for it, or "" if it can't be read. Nothing
	// is ever swept then.
	id string
	// started is when it began, by the clock of now.
	started time.Time
}

// currentBoot asks the kernel.
func currentBoot() boot {
	id, err := readFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return boot{}
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return boot{}
	}
	return boot{id: strings.TrimSpace(string(id)), started: time.Now().Add(-time.Duration(up.Nano()))}
}

// sweep removes the leases of earlier boots and returns the others. It is called
// once per boot, by the first command that finds another boot's state, or none,
// in the directory; found is that state, or nil.
//
// A lease that is in the index of an earlier boot was made in that boot: this is
// certain whatever the clocks say. host-local, if it has come before us in this
// boot, removes a lease's index entry with the lease, and what it leases itself
// has none; an entry that is older than its lease is not believed.
//
// A lease that is not in the index was made by host-local, and only its time of
// modification can tell when. It goes if it is older than the boot, where the
// boot's start is the present time less the time since. A clock that was stepped
// misleads this rule, never the first one:
//
//   - Stepped forward during this boot, after host-local made leases and before
//     our first command (a machine without a clock battery, until its first NTP
//     answer): those leases look older than the boot and are freed although
//     their containers run. A node should have its time before its containers.
//   - Stepped back, or a clock that is behind at boot: leases of an earlier boot
//     look younger than this one and stay until GC or DEL.
//
// Afterwards the state says that this is our boot, and the clock is not looked
// at again before the next one.
func (s *session) sweep(records []record, entries []indexEntry, found *state) ([]record, error) {
	now := s.boot()
	indexed := map[string]time.Time{}
	if found != nil {
		for _, entry := range entries {
			indexed[entry.key+entry.addr.String()] = entry.made
		}
	}
	var kept []record
	var errs []error
	for _, r := range records {
		made, ok := indexed[indexKey(r.Owner)+r.Address.String()]
		earlier := ok && !made.Before(r.modified) || r.modified.Before(now.started)
		if !earlier {
			kept = append(kept, r)
			continue
		}
		if err := s.remove(filepath.Join(s.dir, r.Address.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return kept, errors.Join(errs...)
}
