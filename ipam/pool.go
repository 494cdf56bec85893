// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
)

// Pool is one network's addresses: its configuration and its lease directory. It
// holds no file open between calls, and any number of pools, in any number of
// processes, may work on one directory.
type Pool struct {
	// Node, if set, is the name of the node that [Pool.Allocate] leases for: the
	// leases say so, for [Stale].
	Node   string
	config *config
	store  *store
}

// NewPool reads a whole network configuration, as a plugin gets it on stdin, and
// the CNI_ARGS string. It touches no file. Errors are *ConfigError.
func NewPool(stdin []byte, cniArgs string) (*Pool, error) {
	c, err := parseConfig(stdin, cniArgs)
	if err != nil {
		return nil, err
	}
	return &Pool{config: c, store: &store{dir: filepath.Join(c.dataDir, c.name), boot: currentBoot}}, nil
}

// Dir returns the directory of the pool's leases, which may not exist.
func (p *Pool) Dir() string { return p.store.dir }

// Subnets returns the subnets of all ranges, each once, in the order of the
// configuration.
func (p *Pool) Subnets() []netip.Prefix {
	var subnets []netip.Prefix
	known := map[netip.Prefix]bool{}
	for _, set := range p.config.sets {
		for _, r := range set {
			if !known[r.subnet] {
				known[r.subnet] = true
				subnets = append(subnets, r.subnet)
			}
		}
	}
	return subnets
}

// Release ends every lease of the owner and returns their addresses. If it has
// none, the leases of its container in host-local's older format, which names no
// interface, are ended. That there is nothing to release is no error, and
// neither is a directory that doesn't exist; it is not made.
//
// It goes on after an error and returns what was released, with an *IOError.
func (p *Pool) Release(owner Owner) ([]netip.Addr, error) {
	s, err := p.store.begin(false)
	if errors.Is(err, errNoDirectory) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer s.end()
	leases, err := s.held(owner.normal())
	if err != nil {
		return nil, err
	}
	dropped, err := s.dropAll(leases)
	var released []netip.Addr
	for _, lease := range dropped {
		released = append(released, lease.Address)
	}
	return released, err
}

// Leases returns the addresses that Release would free. Errors are *IOError.
func (p *Pool) Leases(owner Owner) ([]netip.Addr, error) {
	s, err := p.store.begin(false)
	if errors.Is(err, errNoDirectory) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer s.end()
	leases, err := s.held(owner.normal())
	var addrs []netip.Addr
	for _, lease := range leases {
		addrs = append(addrs, lease.Address)
	}
	return addrs, err
}

// Collect ends every lease whose owner is not valid and returns them. For a lease
// in host-local's older format valid is asked about an owner without interface
// name and must say whether any attachment of the container is valid; see
// [ValidOwners]. Leases outside of the configured ranges are collected as well,
// other files are left alone.
//
// It goes on after an error and returns what was collected, with an *IOError.
func (p *Pool) Collect(valid func(Owner) bool) ([]Lease, error) {
	s, err := p.store.begin(false)
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
	for _, r := range records {
		if !valid(r.Owner) {
			stale = append(stale, r.Lease)
		}
	}
	return s.dropAll(stale)
}

// Check returns an error that wraps ErrNotLeased unless the owner holds an
// address of every range set. Other errors are *IOError.
func (p *Pool) Check(owner Owner) error {
	addrs, err := p.Leases(owner)
	if err != nil {
		return err
	}
	for i, set := range p.config.sets {
		if !holdsOneOf(set, addrs) {
			return fmt.Errorf("range set %d (%s): %w to %s", i, set, ErrNotLeased, owner)
		}
	}
	return nil
}

func holdsOneOf(set rangeSet, addrs []netip.Addr) bool {
	for _, addr := range addrs {
		if set.find(addr) != nil {
			return true
		}
	}
	return false
}

// Status returns an error that wraps ErrExhausted if a range set has no free
// address, and an *IOError if the directory can't be used or made. It reads the
// directory's names, not the leases.
func (p *Pool) Status() error {
	if err := p.store.usable(); err != nil {
		return err
	}
	s, err := p.store.begin(false)
	if errors.Is(err, errNoDirectory) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.end()
	taken, err := s.taken()
	if err != nil {
		return err
	}
	for i, set := range p.config.sets {
		if size := set.size(); size <= uint64(len(taken)) && uint64(count(set, taken)) >= size {
			return exhausted(i, set)
		}
	}
	return nil
}

// count returns how many of the addresses could be leased from the set.
func count(set rangeSet, addrs map[netip.Addr]struct{}) int {
	n := 0
	for addr := range addrs {
		if r := set.find(addr); r != nil && addr != r.gateway {
			n++
		}
	}
	return n
}

func exhausted(i int, set rangeSet) error {
	return fmt.Errorf("allocate for range %d: %w in range set: %s", i, ErrExhausted, set)
}
