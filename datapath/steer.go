// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/loader"
)

// foreign says that a device is not one that programs belong on.
func foreign(device, format string, args ...any) error {
	return fmt.Errorf("device %s %s", device, fmt.Sprintf(format, args...))
}

// AttachEndpoint attaches the programs of a host veth to a device. Without
// force it has to be the host veth of an endpoint whose addresses are all
// published: the programs drop what comes from any other address.
func AttachEndpoint(device string, force bool) ([]loader.Step, error) {
	link, err := deviceByName(device)
	if err != nil {
		return nil, err
	}
	attrs := link.Attrs()
	if !force && !isOurs(attrs) {
		return nil, foreign(device, "is no endpoint's: it is in link group %d, not %d or %d, and the programs would drop what comes from addresses that nobody leased", attrs.Group, Group, GroupUnchecked)
	}
	if !force {
		if err := checkPublished(attrs); err != nil {
			return nil, err
		}
	}
	return loader.Site{}.AttachDevice(attrs.Index)
}

func checkPublished(attrs *netlink.LinkAttrs) (err error) {
	node, err := loader.Find(attrs.Index)
	if errors.Is(err, loader.ErrNotLoaded) {
		return foreign(attrs.Name, "is not published, as nothing is loaded: the programs would drop what it sends; repair publishes it and attaches them")
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	return published(node, attrs)
}

// published returns nil if every address that is routed to a device by us is in
// the endpoints map for it, and there is one.
func published(node *loader.Node, attrs *netlink.LinkAttrs) error {
	addresses, err := addressesOf(attrs.Index)
	if err != nil {
		return err
	}
	if len(addresses) == 0 {
		return foreign(attrs.Name, "has no route of zipline's to an address: the programs would drop what it sends; repair makes the routes, publishes it and attaches them")
	}
	for _, addr := range addresses {
		if entry, err := node.Lookup(addr); err != nil || entry.IfIndex != attrs.Index {
			return foreign(attrs.Name, "is not wholly published (%s): the programs would drop what it sends; repair publishes it and attaches them", addr)
		}
	}
	return nil
}

// AttachUplink attaches the programs of an uplink to a device, and lets packets
// of endpoints leave by it. It refuses what the programs do not understand.
// Without force it has to be the device of a default route.
func AttachUplink(device string, force bool) ([]loader.Step, error) {
	link, err := deviceByName(device)
	if err != nil {
		return nil, err
	}
	switch attrs := link.Attrs(); {
	case isOurs(attrs):
		return nil, foreign(device, "is the host veth of an endpoint and cannot be an uplink")
	case !isUplink(link):
		return nil, foreign(device, "carries no Ethernet frames (its type is %s)", attrs.EncapType)
	}
	mtu, routed, err := routeMTU(link.Attrs().Index)
	if err != nil {
		return nil, err
	}
	if !routed && !force {
		return nil, foreign(device, "has no default route")
	}
	return loader.Site{}.AttachUplinkDevice(link.Attrs().Index, mtu)
}

// DetachDevice takes all programs of ours off a device; the stack carries its
// packets from then on.
func DetachDevice(device string) ([]loader.Step, error) {
	link, err := deviceByName(device)
	if err != nil {
		return nil, err
	}
	return loader.Site{}.DetachDevice(link.Attrs().Index)
}

// routeMTU returns the least MTU of the default routes by a device, and whether
// there is one.
func routeMTU(index int) (mtu uint32, routed bool, err error) {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		links, err := uplinks(family)
		errs = append(errs, err)
		for _, l := range links {
			if l.Attrs().Index == index {
				mtu, routed = leastMTU(mtu, l.routeMTU), true
			}
		}
	}
	return mtu, routed, errors.Join(errs...)
}

func deviceByName(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return nil, fmt.Errorf("device %s: %w", name, unix.ENODEV)
	}
	if err != nil {
		return nil, fmt.Errorf("read device %s: %w", name, err)
	}
	return link, nil
}
