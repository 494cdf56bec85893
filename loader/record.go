// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/json"
	"fmt"
	"os"
)

// record is what the last publisher of a node says it did. It names a program
// by what only the kernel can give (id, tag and time of load), so that it is
// believed for exactly the program it was written about.
type record struct {
	// Digest of the object file that the program was loaded from.
	Digest string `json:"digest"`
	// ID, Tag and LoadTime (ns since boot) of the program.
	ID       uint32 `json:"id"`
	Tag      string `json:"tag"`
	LoadTime uint64 `json:"loadTime"`
	// Conntrack says whether the program looks flows up in conntrack.
	Conntrack bool `json:"conntrack"`
	// Module says whether nf_conntrack was in the kernel when Conntrack was found out.
	Module bool `json:"module"`
}

// describes says whether the record was written about this program.
func (r *record) describes(info *progInfo) bool {
	return r.ID == info.id && r.Tag == info.tag && r.LoadTime == info.loadTime
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
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("read record %s: %w", recordPath(dir), err)
	}
	return r, nil
}

// write replaces the record by rename: a reader sees the old one or the new.
// There is nothing to sync, since what it describes does not survive a crash of
// the machine either.
func (r *record) write(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	path := recordPath(dir)
	if err := os.WriteFile(nextName(path), append(data, '\n'), 0o600); err != nil {
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
