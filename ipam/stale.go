// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"path/filepath"
	"slices"
)

// Stale returns the leases of a network that nobody holds any more, as held
// says, and with end ends them. held is asked under the directory's lock, so a
// lease that is being made is either not there yet or its owner can be seen.
func Stale(dataDir, network string, held func(Lease) bool, end bool) ([]Lease, error) {
	st := &store{dir: filepath.Join(dataDir, network), boot: currentBoot}
	s, err := st.begin(false)
	if errors.Is(err, errNoDirectory) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer s.end()
	records, err := s.scan()
	if err != nil {
		return nil, err
	}
	var stale []Lease
	var errs []error
	for _, r := range records {
		if held(r.Lease) {
			continue
		}
		if end {
			if err := s.drop(r.Lease); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		stale = append(stale, r.Lease)
	}
	slices.SortFunc(stale, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	return stale, errors.Join(errs...)
}
