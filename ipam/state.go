// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// state is what the last command that used this package left in the directory.
type state struct {
	// boot is the boot that the leases belong to.
	boot string
	// stamp is the time of modification that the command gave the directory and
	// the index when it was done, in nanoseconds. While both still have it, no
	// file has been added or removed by anybody else, a process that was killed
	// half-way included, and the index is complete. Two changes within one tick
	// of the kernel's clock can't hide behind each other, because the stamp is
	// taken from the precise clock and the kernel's own times are not.
	stamp int64
}

// stateSize is the file's size.
const stateSize = 128

const stateFormat = "zipline-ipam 1\nboot %s\nstamp %d\n"

// readState returns nil for a state that is missing or not understood, which are
// the same: the directory is looked through.
func (st *store) readState() (*state, error) {
	data, err := readFile(st.state())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseState(data), nil
}

func parseState(data []byte) *state {
	var found state
	n, err := fmt.Sscanf(string(data), stateFormat, &found.boot, &found.stamp)
	if err != nil || n != 2 {
		return nil
	}
	return &found
}

// writeState overwrites the state. It has a fixed size, so that one write does it.
func (s *session) writeState(st state) error {
	content := fmt.Sprintf(stateFormat, st.boot, st.stamp)
	return s.overwrite(s.state(), []byte(content+strings.Repeat("\n", max(0, stateSize-len(content)))))
}

// isStamped tells whether the directory and the index still have this stamp.
func (s *session) isStamped(stamp int64) bool {
	for _, path := range []string{s.dir, s.owners()} {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mtim.Nano() != stamp {
			return false
		}
	}
	return true
}

// stamp records that the index is complete. It has no error to return: where it
// doesn't work, the stamp doesn't match, and the next command looks through the
// directory, slower but right.
func (s *session) stamp() {
	now := time.Now()
	for _, path := range []string{s.dir, s.owners()} {
		s.about("stamp")
		if os.Chtimes(path, time.Time{}, now) != nil {
			return
		}
	}
	_ = s.writeState(state{boot: s.bootID, stamp: now.UnixNano()})
}
