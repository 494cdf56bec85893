// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/datapath/nat"
)

// Setup addresses the endpoint and connects it. It returns what a person
// should know although the attachment works (a step down to a slower tier).
//
// The order matters: the host route claims the address before anything else
// is keyed by it, translation is in place before the container can send, and
// the endpoint is published in the eBPF map last. When Setup fails, [Remove]
// undoes it.
func (e *Endpoint) Setup(s *Spec) (warnings []string, err error) {
	if _, has6 := s.families(); has6 && !e.haveIPv6() {
		return nil, &UnsupportedError{Key: "ipam", Reason: errNoIPv6}
	}
	if err := enableForwarding(s); err != nil {
		return nil, err
	}
	if err := e.addGateways(s); err != nil {
		return nil, err
	}
	if err := e.claimInSubnets(s); err != nil {
		return nil, err
	}
	if err := e.configureContainer(s); err != nil {
		return nil, err
	}
	if err := waitUp(e.Index); err != nil {
		return nil, err
	}
	if err := e.waitLocal(s); err != nil {
		return nil, err
	}
	return e.publish(s)
}

// claimInSubnets makes what the subnets have once, and what is keyed by the
// addresses, under the subnets' locks: a removal that finds itself the last
// of a subnet cannot come between.
func (e *Endpoint) claimInSubnets(s *Spec) (err error) {
	for _, subnet := range s.subnets() {
		lock, lockErr := lockSubnet(subnet, false)
		if lockErr != nil {
			return lockErr
		}
		defer func() { err = errors.Join(err, lock.Close()) }()
	}
	if err := e.claimAddresses(s); err != nil {
		return err
	}
	// The guard marks that there may be elements of the subnet: it is made
	// before them and removed after them.
	if err := guard(s); err != nil {
		return err
	}
	return addToRuleset(s)
}

// subnets returns the distinct subnets in a fixed order, so that two
// attachments cannot lock each other out.
func (s *Spec) subnets() []netip.Prefix {
	prefixes := make([]netip.Prefix, 0, len(s.Addresses))
	for _, a := range s.Addresses {
		prefixes = append(prefixes, a.Subnet())
	}
	return sortedPrefixes(prefixes)
}

// addToRuleset adds the elements of the endpoint, and installs the ruleset
// first where it is missing or of another version.
func addToRuleset(s *Spec) (err error) {
	rules, err := nat.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rules.Close()) }()
	if err = addElements(rules, s); !errors.Is(err, nat.ErrNoTable) {
		return err
	}
	lock, err := lockNode()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	// Of many first ADDs one installs it while the others wait for the lock.
	if err = addElements(rules, s); !errors.Is(err, nat.ErrNoTable) {
		return err
	}
	if err := rules.Install(); err != nil {
		return err
	}
	return addElements(rules, s)
}

// addElements takes over elements whose owner is gone: the host route, which
// this endpoint holds, decides who has the address.
func addElements(rules *nat.Ruleset, s *Spec) error {
	for range len(s.Addresses) + 1 {
		err := rules.Add(s.owner(), s.sources(), s.natOptions())
		var owned *nat.OwnedError
		if !errors.As(err, &owned) {
			return err
		}
		if _, linkErr := netlink.LinkByName(owned.Owner.Device); !isNotFound(linkErr) {
			return &AddressInUseError{Address: owned.Address, Owner: "device " + owned.Owner.Device}
		}
		if err := rules.Remove(owned.Owner, []netip.Addr{owned.Address}); err != nil {
			return err
		}
	}
	return fmt.Errorf("add elements of %s: owners keep changing", s.Device())
}

func (s *Spec) natOptions() nat.Options {
	var options nat.Options
	for _, a := range s.Addresses {
		options.Addresses = append(options.Addresses, a.Addr())
	}
	if s.MACCheck {
		options.MAC = s.MAC
	}
	if s.Isolated {
		for _, a := range s.Addresses {
			options.Isolated = append(options.Isolated, a.Prefix)
		}
	}
	return options
}
