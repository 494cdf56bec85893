// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath/nat"
	"github.com/zipline-cni/zipline/internal/rcu"
	"github.com/zipline-cni/zipline/loader"
)

// Leftover is something of an endpoint that is gone.
type Leftover struct {
	// Kind of the object: element, entry, guard, lease or node.
	Kind string
	// Object names it.
	Object string
	// Of is what it belonged to.
	Of string
}

// CollectLeftovers lists what is left in this network namespace of endpoints whose
// device is gone, whatever their network, and with remove removes it. The kernel
// itself takes the device, its addresses, routes, neighbours and programs away
// with the container's namespace. It goes on after an error.
func CollectLeftovers(remove bool) ([]Leftover, error) {
	if remove {
		rcu.Settle() // a removal may have been killed
	}
	var list []Leftover
	var errs []error
	for _, find := range []func(bool) ([]Leftover, error){collectDeadElements, collectDeadEntries, collectEmptyGuards} {
		found, err := find(remove)
		list, errs = append(list, found...), append(errs, err)
	}
	return list, errors.Join(errs...)
}

func collectDeadElements(remove bool) (list []Leftover, err error) {
	networks := map[string]bool{}
	err = withRuleset(func(rules *nat.Ruleset) error {
		owned, err := rules.Owned()
		if err != nil {
			return err
		}
		dead := map[string]bool{} // device → it is gone
		for _, o := range owned {
			device := o.Owner.Device
			if _, known := dead[device]; !known {
				dead[device] = deviceGone(device)
			}
			if dead[device] {
				key := device
				if o.Address.IsValid() {
					key = o.Address.String()
				}
				list = append(list, Leftover{"element", o.Set + " " + key, device})
				networks[o.Owner.Network] = true
			}
		}
		return nil
	})
	if err != nil || !remove {
		return list, err
	}
	var errs []error
	for network := range networks {
		// Asked again of each: an ADD may have come since.
		errs = append(errs, collectElements(network, deviceGone))
	}
	return list, errors.Join(errs...)
}

func collectDeadEntries(remove bool) (list []Leftover, err error) {
	node, err := loader.Find(0)
	if errors.Is(err, loader.ErrNotLoaded) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	dead, err := node.Dead(deviceAlive)
	if err != nil {
		return nil, err
	}
	for _, addr := range slices.SortedFunc(maps.Keys(dead.Endpoints), netip.Addr.Compare) {
		list = append(list, Leftover{"entry", "endpoints " + addr.String(), "device " + strconv.Itoa(dead.Endpoints[addr])})
	}
	for _, of := range []struct {
		name    string
		indexes []int
	}{{"devices", dead.Devices}, {"uplinks", dead.Uplinks}} {
		for _, index := range of.indexes {
			list = append(list, Leftover{"entry", fmt.Sprintf("%s %d", of.name, index), "device " + strconv.Itoa(index)})
		}
	}
	if !remove || len(list) == 0 {
		return list, nil
	}
	return list, errors.Join(node.Collect(deviceAlive), node.ReleaseUplinks())
}

// collectEmptyGuards finds guarded subnets without an endpoint.
func collectEmptyGuards(remove bool) (list []Leftover, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		subnets, err := guardedSubnets(family)
		if err != nil {
			return nil, err
		}
		for _, subnet := range subnets {
			used, err := subnetInUse(subnet)
			if err != nil {
				return nil, err
			}
			if !used {
				list = append(list, Leftover{"guard", "unreachable " + subnet.String(), "subnet without endpoints"})
			}
		}
	}
	if !remove {
		return list, nil
	}
	return list, releaseGuards()
}

// Holds says whether the attachment has its device in this network namespace, or
// somebody else than zipline serves the address: then a lease is in use. It says
// so, too, where the kernel does not answer.
func Holds(a Attachment, addr netip.Addr) (bool, error) {
	_, err := netlink.LinkByName(a.Device())
	if err == nil {
		return true, nil
	}
	if !isNotFound(err) {
		return true, fmt.Errorf("read device %s: %w", a.Device(), err)
	}
	route, err := routeTo(addr)
	if err != nil {
		return true, err
	}
	if route == nil || route.Dst == nil {
		return false, nil // by the default route: nobody here has it
	}
	ones, _ := route.Dst.Mask.Size()
	return ones > 0 && (route.Protocol != RouteProtocol || isClaim(route)), nil
}
