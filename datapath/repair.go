// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/loader"
)

// Repaired is one thing that was not as it should be.
type Repaired struct {
	// Device is the host veth that it belongs to; empty for what is the node's.
	Device string
	// Object and Wrong say what it is and what was wrong with it.
	Object, Wrong string
	// Mended says that it is right now, or with a dry run that it would be tried.
	Mended bool
	// Reason says why it was not mended.
	Reason string
}

// Repair compares the node with what its endpoints should be, and makes right
// what is not: programs, map entries, routes, neighbours, guards, addresses,
// switches, the ruleset and the device's own properties. The container's side is
// left alone. With dryRun it only says what is wrong. It goes on after an error.
//
// It makes up nothing: what follows neither from the kernel's state nor from the
// evidence is reported with the reason why it stays.
func Repair(e Evidence, dryRun bool) ([]Repaired, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var list []Repaired
	var errs []error
	var endpoints []netlink.Link
	for _, link := range links {
		if e.isEndpoint(link.Attrs()) {
			endpoints = append(endpoints, link)
		}
	}
	slices.SortFunc(endpoints, func(a, b netlink.Link) int { return strings.Compare(a.Attrs().Name, b.Attrs().Name) })
	pins, err := repairPins(e, endpoints, dryRun)
	list, errs = append(list, pins...), append(errs, err)
	for _, link := range endpoints {
		found, err := e.repairEndpoint(link, dryRun)
		if err != nil && !isNotFound(err) {
			errs = append(errs, fmt.Errorf("repair %s: %w", link.Attrs().Name, err))
		}
		list = appendOnce(list, found)
	}
	return list, errors.Join(errs...)
}

// appendOnce gives what the endpoints share to the node, and leaves out what has
// been found by way of another endpoint.
func appendOnce(list, found []Repaired) []Repaired {
	for _, r := range found {
		if isShared(r.Device, r.Object) {
			r.Device = ""
		}
		if r.Device != "" || !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list
}

// isShared says whether an object, as a [Finding] names it, is more than one
// endpoint's: a guard (the route of a subnet), an uplink, a sysctl of another
// device or of none, and all of the ruleset but its elements.
func isShared(device, object string) bool {
	kind, name, _ := strings.Cut(object, " ")
	switch kind {
	case "table", "chain", "set", "rule", "uplink":
		return true
	case "route":
		return strings.Contains(name, "/")
	case "sysctl":
		return !strings.Contains(name, "/"+device+"/")
	}
	return false
}

// isEndpoint also finds devices that lost their group.
func (e Evidence) isEndpoint(attrs *netlink.LinkAttrs) bool {
	return isOurs(attrs) || e.Specs[attrs.Name] != nil || e.Leased[attrs.Name].Network != "" ||
		strings.HasPrefix(attrs.Name, devicePrefix) && strings.HasPrefix(attrs.Alias, aliasMark+" ")
}

// repairPins loads or pins what the endpoints need.
func repairPins(e Evidence, endpoints []netlink.Link, dryRun bool) ([]Repaired, error) {
	wanted := slices.ContainsFunc(endpoints, func(l netlink.Link) bool {
		spec := e.Specs[l.Attrs().Name]
		return spec == nil && loader.Recorded() || spec != nil && spec.accelerated()
	})
	if !wanted {
		return nil, nil
	}
	err := loader.Site{}.Current()
	if err == nil {
		return nil, nil
	}
	found := Repaired{Object: "programs and their pins", Wrong: err.Error(), Mended: true}
	if !dryRun {
		if _, err := (loader.Site{}).Load(); err != nil {
			found.Mended, found.Reason = false, err.Error()
		}
	}
	return []Repaired{found}, nil
}

// repairEndpoint looks, mends, and looks again: what is still wrong then was not
// mended.
func (e Evidence) repairEndpoint(link netlink.Link, dryRun bool) ([]Repaired, error) {
	name := link.Attrs().Name
	spec, err := e.specOf(link)
	if err != nil {
		return nil, err
	}
	if spec == nil {
		return e.repairLimited(link, dryRun)
	}
	var list []Repaired
	r := &repairer{spec: spec, link: link}
	before, err := r.findings()
	if err != nil {
		return list, err
	}
	if dryRun || len(before) == 0 {
		for _, f := range before {
			list = append(list, Repaired{Device: name, Object: f.Object, Wrong: f.Wrong, Mended: true})
		}
		return list, nil
	}
	mendErr := r.mend()
	fresh, err := netlink.LinkByIndex(link.Attrs().Index)
	if err != nil {
		return list, errors.Join(mendErr, err)
	}
	r.link = fresh
	after, err := r.findings()
	if err != nil {
		return list, errors.Join(mendErr, err)
	}
	for _, f := range before {
		done := Repaired{Device: name, Object: f.Object, Wrong: f.Wrong, Mended: true}
		if slices.ContainsFunc(after, func(a Finding) bool { return a.Object == f.Object }) {
			done.Mended, done.Reason = false, "to mend: "+f.Mend
			if mendErr != nil {
				done.Reason = mendErr.Error()
			}
		}
		list = append(list, done)
	}
	return list, nil
}
