// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Remove deletes what the ruleset holds of an endpoint: elements of the
// addresses that belong to o.Device, and those of the device itself. What is not
// there, or belongs to another, is left alone and is no error; neither is a
// missing table. It is one transaction and needs no lock.
func (r *Ruleset) Remove(o Owner, addrs []netip.Addr) error {
	for _, addr := range addrs {
		if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
			return fmt.Errorf("remove elements of %s: %s is no plain IPv4 or IPv6 address", o.Device, addr)
		}
	}
	if err := retry(func() error { return r.remove(o, addrs) }); err != nil {
		return fmt.Errorf("remove elements of %s: %w", o.Device, err)
	}
	return nil
}

func (r *Ruleset) remove(o Owner, addrs []netip.Addr) error {
	slots := []slot{deviceSlot(o, Options{})}
	addrs = slices.Clone(addrs)
	slices.SortFunc(addrs, netip.Addr.Compare)
	for _, addr := range slices.Compact(addrs) {
		slots = append(slots, addressSlots(o, addr, nil, false, false)...)
	}
	answer, err := r.look(slotLookups(slots)...)
	if err != nil {
		return err
	}
	var batch []message
	for i, s := range slots {
		is, err := s.found(answer.replies[i])
		if err != nil {
			return err
		}
		messages, err := s.fill(o, is)
		if err != nil && !errors.Is(err, ErrOwned) {
			return err
		}
		batch = append(batch, messages...)
	}
	return r.commit(answer.generation, batch)
}
