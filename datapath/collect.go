// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath/conntrack"
	"github.com/zipline-cni/zipline/datapath/nat"
	"github.com/zipline-cni/zipline/internal/rcu"
	"github.com/zipline-cni/zipline/loader"
)

// Collect removes every attachment of the network that is not among the
// valid ones: devices (found by group and alias), and map entries and
// elements whose device is gone. subnets are those of the network, as far as
// known. It goes on after an error and returns all of them joined.
func Collect(network string, valid []Attachment, subnets []netip.Prefix) error {
	rcu.Settle() // a removal may have been killed
	keep := map[string]bool{}
	for _, a := range valid {
		keep[a.Device()] = true
	}
	links, err := netlinksafe.LinkList()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	var errs []error
	alive := map[string]bool{}
	indexes := map[int]bool{}
	for _, link := range links {
		attrs := link.Attrs()
		if isOurs(attrs) && ofNetwork(attrs.Name, attrs.Alias, network) && !keep[attrs.Name] {
			owner := nat.Owner{Device: attrs.Name, Network: network}
			errs = append(errs, remove(owner, Hints{Subnets: subnets}, nil))
			continue
		}
		alive[attrs.Name] = true
		indexes[attrs.Index] = true
	}
	errs = append(errs, collectElements(network, alive), collectEntries(indexes), releaseGuards())
	return errors.Join(errs...)
}

// releaseGuards releases every guarded subnet without an endpoint, whatever
// network it was of: where another plugin manages the addresses, nothing else
// tells the subnets of a network.
func releaseGuards() error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		subnets, err := guardedSubnets(family)
		errs = append(errs, err)
		for _, subnet := range subnets {
			errs = append(errs, releaseSubnet(subnet))
		}
	}
	return errors.Join(errs...)
}

func isOurs(attrs *netlink.LinkAttrs) bool {
	return attrs.Group == Group || attrs.Group == GroupUnchecked
}

// collectElements removes elements of devices that are gone, and what
// conntrack knows of their addresses. A device that is not known to be alive may
// have been made since, so it is looked up again.
func collectElements(network string, known map[string]bool) error {
	alive := func(device string) bool {
		if known[device] {
			return true
		}
		_, err := netlink.LinkByName(device)
		return !isNotFound(err)
	}
	var addresses []netip.Addr
	err := withRuleset(func(rules *nat.Ruleset) (err error) {
		addresses, err = rules.Addresses(func(o nat.Owner) bool { return o.OwnerOf(network) && !alive(o.Device) })
		if err != nil {
			return err
		}
		_, err = rules.Collect(network, alive)
		return err
	})
	freed, claimErr := unclaimed(sortedAddrs(addresses))
	_, flowErr := conntrack.DeleteAddresses(freed...)
	return errors.Join(err, claimErr, flowErr)
}

// collectEntries removes map entries of devices that are gone. An index that
// was not in the list may be a device made since, so it is looked up again.
func collectEntries(indexes map[int]bool) (err error) {
	node, err := loader.Find(0)
	if errors.Is(err, loader.ErrNotLoaded) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	err = node.Collect(func(index int) bool {
		if indexes[index] {
			return true
		}
		return deviceAlive(index)
	})
	return errors.Join(err, node.ReleaseUplinks())
}
