// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Collect deletes the elements of a network's endpoints whose device is not
// alive, and returns how many. It reads all elements. A missing table is no
// error.
func (r *Ruleset) Collect(network string, alive func(device string) bool) (int, error) {
	word := networkWord(network)
	var n int
	err := retry(func() (err error) {
		n, err = r.deleteWhere(endpointSets(), func(_ *setSpec, el element) bool {
			owner := parseOwner(el.comment)
			return owner.Device != "" && owner.Network == word && !alive(owner.Device)
		})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("collect elements of network %s: %w", network, err)
	}
	return n, nil
}

// RemoveNetwork deletes the exempt destinations and the segments of subnets, when
// the last endpoint of each is gone. A subnet in which an address is still
// translated keeps the former, one in which an address is still isolated the
// latter, whatever network that address is of. A missing table is no error.
func (r *Ruleset) RemoveNetwork(subnets []netip.Prefix) error {
	err := retry(func() error { return r.removeNetwork(subnets) })
	if err != nil {
		return fmt.Errorf("remove subnets %v: %w", subnets, err)
	}
	return nil
}

func (r *Ruleset) removeNetwork(subnets []netip.Prefix) error {
	inUse := map[*setSpec][]netip.Addr{}
	// First the sets of addresses, then those that depend on them.
	from := append([]*setSpec{ipv4.source, ipv6.source, ipv4.isolated, ipv6.isolated}, subnetSets...)
	_, err := r.deleteWhere(from, func(s *setSpec, el element) bool {
		if !s.interval {
			inUse[s] = append(inUse[s], s.address(el))
			return false
		}
		held, ok := rectangleOf(el)
		return ok && slices.ContainsFunc(subnets, func(p netip.Prefix) bool {
			return spanOf(p).contains(held.source) && !slices.ContainsFunc(inUse[s.of], p.Contains)
		})
	})
	return err
}

// Addresses returns the addresses of the elements whose owner matches. It reads
// all elements. A missing table has none.
func (r *Ruleset) Addresses(match func(Owner) bool) ([]netip.Addr, error) {
	owned, err := r.Owned()
	var addrs []netip.Addr
	for _, o := range owned {
		if o.Address.IsValid() && match(o.Owner) {
			addrs = append(addrs, o.Address)
		}
	}
	return addrs, err
}

// Owned is an element of an endpoint.
type Owned struct {
	Owner Owner
	Set   string
	// Address is what the key ends with, the zero Addr in the sets of macspoofchk.
	Address netip.Addr
}

// Owned lists the elements whose comment names an owner. A missing table has none.
func (r *Ruleset) Owned() ([]Owned, error) {
	var list []Owned
	for _, s := range endpointSets() {
		elements, err := r.elements(s)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read elements of %s: %w", s.name, err)
		}
		for _, el := range elements {
			o := Owned{Owner: parseOwner(el.comment), Set: s.name, Address: s.address(el)}
			if o.Owner.Device != "" {
				list = append(list, o)
			}
		}
	}
	return list, nil
}

// endpointSets hold the elements of endpoints.
func endpointSets() []*setSpec {
	return slices.DeleteFunc(slices.Clone(sets), func(s *setSpec) bool { return s.interval })
}

// deleteWhere deletes the elements of sets that condition picks, and returns how
// many. It returns a conflict if anything changed meanwhile.
func (r *Ruleset) deleteWhere(from []*setSpec, condition func(*setSpec, element) bool) (int, error) {
	start, err := r.look()
	if err != nil {
		return 0, err
	}
	var batch []message
	n := 0
	for _, s := range from {
		elements, err := r.elements(s)
		if errors.Is(err, unix.ENOENT) {
			continue // no table, or one that lacks the set: nothing to delete
		}
		if err != nil {
			return 0, err
		}
		elements = slices.DeleteFunc(elements, func(el element) bool { return !condition(s, el) })
		n += len(elements)
		batch = append(batch, deleteElements(s, elements...)...)
	}
	return n, r.commit(start.generation, batch)
}
