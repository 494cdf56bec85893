// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// recordHeader begins each record. Another header is another format, and a
// record in another format proves nothing.
const recordHeader = "zipline-programs-2"

// record is what the last publisher of a node says it did. It names a program
// by what only the kernel can give (id, tag and time of load), so that it is
// believed for exactly the program it was written about.
type record struct {
	// Digest of the object file that the programs were loaded from.
	Digest string
	// Programs by name.
	Programs map[string]programID
	// Conntrack says whether the programs look flows up in conntrack.
	Conntrack bool
	// Module says whether nf_conntrack was in the kernel when Conntrack was found out.
	Module bool
}

// programID is a program as only the kernel can name it; LoadTime is in ns
// since boot.
type programID struct {
	ID       uint32
	Tag      string
	LoadTime uint64
}

// describes says whether the record was written about this program.
func (r *record) describes(info *progInfo) bool {
	return r.Programs[info.name] == programID{info.id, info.tag, info.loadTime}
}

// describesAll says whether the record was written about this set.
func (r *record) describesAll(s *set) bool {
	members := s.members()
	for _, m := range members {
		if !r.describes(m.info) {
			return false
		}
	}
	return len(members) == len(r.Programs)
}

// current says whether the program is what this binary would load.
func (r *record) current(digest string) bool {
	return r.Digest == digest && (r.Conntrack || r.Module || !conntrackModule())
}

func readRecord(dir string) (*record, error) {
	data, err := os.ReadFile(recordPath(dir))
	if err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	r, err := parseRecord(string(data))
	if err != nil {
		return nil, fmt.Errorf("read record %s: %w", recordPath(dir), err)
	}
	return r, nil
}

// parseRecord reads one line of words: each ADD does this, and the general
// decoders take longer than all the system calls beside it.
func parseRecord(text string) (*record, error) {
	words := strings.Fields(text)
	if len(words) < 4 || len(words)%4 != 0 || words[0] != recordHeader {
		return nil, fmt.Errorf("unknown format %.20q", text)
	}
	r := &record{
		Digest: words[1], Conntrack: words[2] == "conntrack", Module: words[3] == "module",
		Programs: map[string]programID{},
	}
	for words = words[4:]; len(words) > 0; words = words[4:] {
		id, err := strconv.ParseUint(words[1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("program id: %w", err)
		}
		loadTime, err := strconv.ParseUint(words[3], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("load time: %w", err)
		}
		r.Programs[words[0]] = programID{ID: uint32(id), Tag: words[2], LoadTime: loadTime}
	}
	return r, nil
}

func (r *record) format() string {
	conntrack, module := "-", "-"
	if r.Conntrack {
		conntrack = "conntrack"
	}
	if r.Module {
		module = "module"
	}
	var text strings.Builder
	fmt.Fprint(&text, recordHeader, " ", r.Digest, " ", conntrack, " ", module)
	for _, name := range slices.Sorted(maps.Keys(r.Programs)) {
		p := r.Programs[name]
		fmt.Fprint(&text, " ", name, " ", p.ID, " ", p.Tag, " ", p.LoadTime)
	}
	return text.String() + "\n"
}

// write replaces the record by rename: a reader sees the old one or the new.
// There is nothing to sync, since what it describes does not survive a crash of
// the machine either.
func (r *record) write(dir string) error {
	path := recordPath(dir)
	if err := os.WriteFile(nextName(path), []byte(r.format()), 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(nextName(path), path); err != nil {
		return fmt.Errorf("publish record: %w", err)
	}
	return nil
}

// conntrackModule says whether nf_conntrack is in the kernel, built in or loaded.
func conntrackModule() bool {
	_, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_max")
	return err == nil
}
