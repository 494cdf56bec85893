// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxMisses is how many addresses are looked up one by one before the names in
// the directory are read at once.
const maxMisses = 64

// Result is what an owner was given.
type Result struct {
	// Addresses has one address per range set, in the order of the sets.
	Addresses []Address
	// Routes are those of the configuration.
	Routes []Route
	// DNS is what the configured resolv.conf says.
	DNS DNS
	// Reused says that the owner held all the addresses before: this is an ADD
	// that is repeated, after one that was killed, or of an attachment that
	// exists, which the caller can tell by its device.
	Reused bool
}

// Address is a leased address.
type Address struct {
	// Prefix is the address with the length of its subnet.
	Prefix netip.Prefix
	// Gateway is that of the address's range. It is never leased.
	Gateway netip.Addr
}

// Allocate leases an address of every range set to the owner: the requested
// address if one of the set is requested, else the next free one behind the one
// that was leased last.
//
// What the owner holds already is kept where it is of a range set and not other
// than requested, and given up where not. So an ADD that was killed half-way can
// be repeated, and a second one has the same result as the first.
//
// The error wraps ErrExhausted, ErrInUse or ErrDuplicate, or is a *ConfigError
// for a requested address that no range set can give, or an *IOError. Then
// nothing was leased that was not before.
func (p *Pool) Allocate(owner Owner) (result *Result, err error) {
	if err := owner.validate(); err != nil {
		return nil, err
	}
	result = &Result{Routes: p.config.routes}
	if p.config.resolvConf != "" {
		if result.DNS, err = readResolvConf(p.config.resolvConf); err != nil {
			return nil, err
		}
	}
	s, err := p.store.begin(true)
	if err != nil {
		return nil, err
	}
	defer s.end()
	a := &allocation{session: s, node: p.Node, owner: owner.normal(), requests: slices.Clone(p.config.requests)}
	defer func() {
		if err != nil {
			result, err = nil, errors.Join(err, a.undo())
		}
	}()
	if a.held, err = s.heldExactly(a.owner); err != nil {
		return nil, err
	}
	if err := a.run(p.config.sets, result); err != nil {
		return nil, err
	}
	return result, nil
}

// allocation is one call of Allocate.
type allocation struct {
	*session
	node     string
	owner    Owner
	requests []request // not yet satisfied
	held     []Lease   // from before, and not yet used
	added    []Lease
}

func (a *allocation) run(sets []rangeSet, result *Result) error {
	for i, set := range sets {
		addr, err := a.allocate(i, set)
		if err != nil {
			return err
		}
		r := set.find(addr)
		result.Addresses = append(result.Addresses, Address{netip.PrefixFrom(addr, r.subnet.Bits()), r.gateway})
	}
	if len(a.requests) > 0 {
		var addrs []string
		for _, r := range a.requests {
			addrs = append(addrs, r.addr.String())
		}
		return &ConfigError{a.requests[0].key, "cannot allocate all requested IPs: " + strings.Join(addrs, " ")}
	}
	result.Reused = len(a.added) == 0
	for _, lease := range a.held {
		if err := a.drop(lease); err != nil {
			return err
		}
	}
	return nil
}

// allocate returns the owner's address of range set i.
func (a *allocation) allocate(i int, set rangeSet) (netip.Addr, error) {
	want, requested := a.request(set)
	for k, lease := range a.held {
		r := set.find(lease.Address)
		if r == nil || lease.Address == r.gateway || requested && lease.Address != want.addr {
			continue
		}
		a.held = slices.Delete(a.held, k, k+1)
		return lease.Address, a.moveTo(a.node, lease.Address)
	}
	if requested {
		return want.addr, a.allocateRequested(i, set, want)
	}
	if err := a.checkDuplicate(set); err != nil {
		return netip.Addr{}, err
	}
	addr, err := a.free(i, set)
	if err != nil {
		return netip.Addr{}, err
	}
	return addr, a.lease(i, addr)
}

// request takes the first request for an address of the set off the list.
func (a *allocation) request(set rangeSet) (request, bool) {
	for k, r := range a.requests {
		if set.find(r.addr) != nil {
			a.requests = slices.Delete(a.requests, k, k+1)
			return r, true
		}
	}
	return request{}, false
}

func (a *allocation) allocateRequested(i int, set rangeSet, want request) error {
	if r := set.find(want.addr); want.addr == r.gateway {
		return &ConfigError{want.key, fmt.Sprintf("requested IP address %s is the gateway of %s", want.addr, r.subnet)}
	}
	free, err := a.isFree(want.addr)
	if err != nil {
		return err
	}
	if !free {
		return fmt.Errorf("allocate for range %d: requested IP address %s is not available in range set %s: %w",
			i, want.addr, set, ErrInUse)
	}
	return a.lease(i, want.addr)
}

// checkDuplicate refuses another address where the container has one of the set
// for an interface that is not named. It may be the owner's or another's.
func (a *allocation) checkDuplicate(set rangeSet) error {
	leases, err := a.heldExactly(a.owner.container())
	if err != nil {
		return err
	}
	for _, lease := range leases {
		if set.find(lease.Address) != nil {
			return fmt.Errorf("%s has been allocated to %s, %w", lease.Address, a.owner.ContainerID, ErrDuplicate)
		}
	}
	return nil
}

// free returns the next free address of range set i.
func (a *allocation) free(i int, set rangeSet) (netip.Addr, error) {
	var taken map[netip.Addr]struct{}
	misses := 0
	for addr := range set.after(a.last(i)) {
		if misses == maxMisses && taken == nil {
			var err error
			if taken, err = a.taken(); err != nil {
				return netip.Addr{}, err
			}
		}
		if _, ok := taken[addr]; ok {
			continue
		}
		// The file decides, even of an address that has none by the names.
		free, err := a.isFree(addr)
		if err != nil || free {
			return addr, err
		}
		misses++
	}
	return netip.Addr{}, exhausted(i, set)
}

// lease leases an address of range set i to the owner.
func (a *allocation) lease(i int, addr netip.Addr) error {
	lease := Lease{addr, a.owner}
	a.added = append(a.added, lease)
	if err := a.add(lease, a.node); err != nil {
		return err
	}
	return a.setLast(i, addr)
}

// undo ends the leases that were added.
func (a *allocation) undo() error {
	var errs []error
	for _, lease := range a.added {
		errs = append(errs, a.drop(lease))
	}
	return errors.Join(errs...)
}
