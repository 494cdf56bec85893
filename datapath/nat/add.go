// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Add makes the ruleset translate the packets of an endpoint's addresses, and
// isolate them or hold the endpoint to one MAC if opts say so. It is one
// transaction: either all of it is in force afterwards, or nothing changed. What
// the owner has already of these addresses is replaced. No lock is needed, and the cost does not depend on how many
// elements there are, but for the first endpoint of a subnet.
//
// It returns ErrNoTable when the caller must Install first, and an *OwnedError
// when an address is there for another device.
func (r *Ruleset) Add(o Owner, sources []Source, opts Options) error {
	if err := validate(o, sources, opts); err != nil {
		return fmt.Errorf("add elements of %s: %w", o.Device, err)
	}
	err := retry(func() error { return r.add(o, sources, opts) })
	if err != nil {
		return fmt.Errorf("add elements of %s: %w", o.Device, err)
	}
	return nil
}

func validate(o Owner, sources []Source, opts Options) error {
	if o.Device == "" || len(o.Device) >= ifNameLen {
		return fmt.Errorf("device name %q is empty or longer than %d bytes", o.Device, ifNameLen-1)
	}
	for i, s := range sources {
		if err := s.validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(sources[:i], func(o Source) bool { return o.Address == s.Address }) {
			return fmt.Errorf("source %s is given twice", s.Address)
		}
	}
	return opts.validate()
}

func (r *Ruleset) add(o Owner, sources []Source, opts Options) error {
	view, err := r.lookEndpoint(o, sources, opts)
	if errors.Is(err, ErrNoTable) {
		return r.confirm(err)
	}
	if err != nil {
		return err
	}
	var batch []message
	for i, s := range view.slots {
		messages, err := s.fill(o, view.found[i])
		if err != nil {
			return err
		}
		batch = append(batch, messages...)
	}
	for _, set := range subnetSets {
		if !view.incomplete[set] {
			continue
		}
		messages, err := r.complete(set, o, view.wanted[set])
		if err != nil {
			return err
		}
		batch = append(batch, messages...)
	}
	return r.commit(view.generation, batch)
}

// view is what the kernel has of an endpoint.
type view struct {
	generation uint32
	slots      []slot
	found      []*element // in the slots; nil: empty
	wanted     map[*setSpec][]rectangle
	// incomplete sets lack a wanted rectangle, or have it in parts.
	incomplete map[*setSpec]bool
	broken     error // what checkChains found
}

// lookEndpoint reads chains, slots and rectangles in one round trip. It
// returns ErrNoTable where the table is not complete.
func (r *Ruleset) lookEndpoint(o Owner, sources []Source, opts Options) (*view, error) {
	v := &view{
		slots:  slotsOf(o, sources, opts),
		wanted: rectangles(sources, opts), incomplete: map[*setSpec]bool{},
	}
	chains := chainLookups()
	requests := append(chains, slotLookups(v.slots)...)
	slots := len(requests)
	for _, set := range subnetSets {
		for _, w := range v.wanted[set] {
			requests = append(requests, getElement(set, w.element()))
		}
	}
	answer, err := r.look(requests...)
	if err != nil {
		return nil, err
	}
	v.generation = answer.generation
	if v.broken = checkChains(answer.replies[:len(chains)]); v.broken != nil {
		return v, v.broken
	}
	for i, s := range v.slots {
		is, err := s.found(answer.replies[len(chains)+i])
		if err != nil {
			return nil, err
		}
		v.found = append(v.found, is)
	}
	return v, v.readRectangles(answer.replies[slots:])
}

// readRectangles notes which sets lack a rectangle. The kernel answers with the
// element that holds the start of the key asked for.
func (v *view) readRectangles(replies []reply) error {
	i := 0
	for _, set := range subnetSets {
		for _, w := range v.wanted[set] {
			is, err := slot{set: set, element: w.element()}.found(replies[i])
			i++
			if err != nil {
				return err
			}
			if is == nil {
				v.incomplete[set] = true
				continue
			}
			if held, ok := rectangleOf(*is); !ok || !held.contains(w) {
				v.incomplete[set] = true
			}
		}
	}
	return nil
}

// complete returns the messages that add what is missing of the wanted
// rectangles. It reads the whole set, which has some elements per network.
func (r *Ruleset) complete(set *setSpec, o Owner, wanted []rectangle) ([]message, error) {
	present, err := r.rectangles(set)
	if err != nil {
		return nil, err
	}
	var missing []element
	for _, m := range uncovered(wanted, present) {
		el := m.element()
		el.comment = networkComment(o)
		missing = append(missing, el)
	}
	return addElements(set, missing...), nil
}

// networkComment names the network. The element belongs to no endpoint.
func networkComment(o Owner) string { return "network " + networkWord(o.Network) }

func (r *Ruleset) rectangles(s *setSpec) ([]rectangle, error) {
	elements, err := r.elements(s)
	if err != nil {
		return nil, err
	}
	var all []rectangle
	for _, el := range elements {
		if p, ok := rectangleOf(el); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// elements reads a whole set.
func (r *Ruleset) elements(s *setSpec) ([]element, error) {
	messages, err := r.dump(newMessage(unix.NFT_MSG_GETSETELEM, 0, "list elements of "+s.name, func(e *attributes) {
		elementList(e, s.name, nil)
	}))
	if err != nil {
		return nil, err
	}
	var all []element
	for _, m := range messages {
		elements, err := decodeElements(m)
		if err != nil {
			return nil, err
		}
		all = append(all, elements...)
	}
	return all, nil
}
