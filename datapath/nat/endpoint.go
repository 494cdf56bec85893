// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
)

// slot is a place in the ruleset that one endpoint may hold: a key of a set,
// and what should be there. Add fills or clears it, Remove clears it.
type slot struct {
	set     *setSpec
	wanted  bool
	element element
	address netip.Addr // for OwnedError; not valid for a slot of the device
}

// addressSlots are the slots of an address. s is nil for one that is not
// translated; own says that it spares its packets all other checks of the source.
func addressSlots(o Owner, addr netip.Addr, s *Source, isolated, own bool) []slot {
	f := familyOf(addr)
	el, ofDevice := addressElement(addr), ownElement(o.Device, addr)
	el.comment = o.comment(nil)
	ofDevice.comment = el.comment
	to := el
	random, fixed := s != nil && s.Action == MasqueradeFullyRandom, s != nil && s.Action == SNAT
	if fixed {
		to.data = s.To.AsSlice()
	}
	return []slot{
		{f.source, s != nil, el, addr},
		{f.random, random, el, addr},
		{f.snat, fixed, to, addr},
		{f.isolated, isolated, el, addr},
		{f.address, own, ofDevice, addr},
	}
}

// deviceSlot holds the device to opts.MAC, or to nothing.
func deviceSlot(o Owner, opts Options) slot {
	el := deviceElement(o.Device)
	el.comment = o.comment(opts.MAC)
	return slot{set: checkedDevices, wanted: opts.MAC != nil, element: el}
}

// macSlot is the second element of the check.
func macSlot(o Owner, opts Options) slot {
	el := macElement(o.Device, opts.MAC)
	el.comment = o.comment(nil)
	return slot{set: allowedMACs, wanted: true, element: el}
}

// slotsOf are all slots of an endpoint as it should be.
func slotsOf(o Owner, sources []Source, opts Options) []slot {
	var slots []slot
	own := opts.MAC == nil // otherwise no packet may miss the check of the MAC
	for _, s := range sources {
		slots = append(slots, addressSlots(o, s.Address, &s, opts.isolates(s.Address), own)...)
	}
	for _, p := range opts.Isolated {
		if !slices.ContainsFunc(sources, func(s Source) bool { return s.Address == p.Addr() }) {
			slots = append(slots, addressSlots(o, p.Addr(), nil, true, own)...)
		}
	}
	for _, addr := range opts.Addresses {
		translated := slices.ContainsFunc(sources, func(s Source) bool { return s.Address == addr })
		if !translated && !opts.isolates(addr) {
			slots = append(slots, addressSlots(o, addr, nil, false, own)...)
		}
	}
	slots = append(slots, deviceSlot(o, opts))
	if opts.MAC != nil {
		slots = append(slots, macSlot(o, opts))
	}
	return slots
}

func slotLookups(slots []slot) []message {
	var requests []message
	for _, s := range slots {
		requests = append(requests, getElement(s.set, s.element))
	}
	return requests
}

// found returns the element in a slot, nil for none.
func (s slot) found(r reply) (*element, error) {
	if r.missing() {
		return nil, nil
	}
	elements, err := decodeElements(r.Message)
	if err != nil {
		return nil, err
	}
	if len(elements) != 1 {
		return nil, fmt.Errorf("look up %s in %s: %d elements", s.element.about, s.set.name, len(elements))
	}
	elements[0].about = s.element.about
	return &elements[0], nil
}

// fill returns the messages that bring a slot from is (nil: empty) to what is
// wanted. It returns an OwnedError rather than touch another's element.
func (s slot) fill(o Owner, is *element) ([]message, error) {
	var messages []message
	if is != nil {
		if s.wanted && s.matches(*is) {
			return nil, nil
		}
		if owner := parseOwner(is.comment); owner.Device != o.Device {
			return nil, &OwnedError{Owner: owner, Address: s.address}
		}
		messages = append(messages, deleteElements(s.set, *is)...)
		messages = append(messages, s.dropMAC(o, *is)...)
	}
	if s.wanted {
		messages = append(messages, addElements(s.set, s.element)...)
	}
	return messages, nil
}

// dropMAC deletes the second element of a device's MAC check along with the
// first, unless it stays as it is.
func (s slot) dropMAC(o Owner, is element) []message {
	if s.set != checkedDevices {
		return nil
	}
	mac := parseMAC(is.comment)
	if mac == nil || s.wanted && bytes.Equal(mac, parseMAC(s.element.comment)) {
		return nil
	}
	return ensureDeleted(allowedMACs, macElement(o.Device, mac))
}

func (s slot) matches(is element) bool {
	return is.comment == s.element.comment && bytes.Equal(is.data, s.element.data)
}
