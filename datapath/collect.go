// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/datapath/nat"
	"github.com/zipline-cni/zipline/loader"
)

// Collect removes every attachment of the network that is not among the
// valid ones: devices (found by group and alias), and map entries and
// elements whose device is gone. subnets are those of the network, as far as
// known. It goes on after an error and returns all of them joined.
func Collect(network string, valid []Attachment, subnets []netip.Prefix) error {
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
			errs = append(errs, remove(owner, Hints{Subnets: subnets}))
			continue
		}
		alive[attrs.Name] = true
		indexes[attrs.Index] = true
	}
	errs = append(errs, collectElements(network, alive), collectEntries(indexes))
	for _, subnet := range subnets {
		// Without a guard there is nothing to release.
		present, err := haveGuard(subnet)
		if errs = append(errs, err); present {
			errs = append(errs, releaseSubnet(subnet))
		}
	}
	return errors.Join(errs...)
}

func isOurs(attrs *netlink.LinkAttrs) bool {
	return attrs.Group == Group || attrs.Group == GroupUnchecked
}

func collectElements(network string, alive map[string]bool) (err error) {
	rules, err := nat.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rules.Close()) }()
	_, err = rules.Collect(network, func(device string) bool { return alive[device] })
	return err
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
	return node.Collect(func(index int) bool {
		if indexes[index] {
			return true
		}
		_, err := netlink.LinkByIndex(index)
		return !isNotFound(err)
	})
}
