// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath/nat"
	"github.com/zipline-cni/zipline/internal/nlink"
	"github.com/zipline-cni/zipline/loader"
)

// step is one thing that is wrong, and how to make it right.
type step struct {
	object, wrong string
	mend          func() error // nil where it is not known how it should be
}

// unpublished says why an entry cannot be made.
const unpublished = "no other endpoint of its network and subnet is published, whose forwarding, segment and slowPathMark are the same"

// limited mends an endpoint whose configuration is not known: what follows from
// the attachment alone, from what is still published of it, and from the map
// entries of neighbours.
type limited struct {
	link      netlink.Link
	of        Attachment
	addresses []netip.Addr
	node      *loader.Node // nil where nothing is loaded
	steps     []step
}

// repairLimited says first that the configuration is not known: whether the
// endpoint is as it was told to be cannot be said.
func (e Evidence) repairLimited(link netlink.Link, dryRun bool) (_ []Repaired, err error) {
	name := link.Attrs().Name
	attachment, known := e.attachmentOf(link.Attrs())
	if !known {
		return []Repaired{{Device: name, Object: "attachment", Wrong: "is not known",
			Reason: "neither the alias nor a lease nor libcni's cache tells what the device belongs to: DEL and ADD the container"}}, nil
	}
	list := []Repaired{{Device: name, Object: "configuration", Wrong: "is not known", Reason: "libcni's cache has neither " + attachment.ContainerID + "/" +
		attachment.IfName + " nor another endpoint of network " + attachment.Network + ": whether to masquerade, isolate or use programs, segment and slowPathMark cannot be told; " + readd + " where these are missing"}}
	addresses, err := e.addressesOf(link.Attrs())
	if err != nil {
		return list, err
	}
	l := &limited{link: link, of: attachment, addresses: addresses}
	node, err := loader.Find(link.Attrs().Index)
	if err == nil {
		l.node = node
		defer func() { err = errors.Join(err, node.Close()) }()
	} else if !errors.Is(err, loader.ErrNotLoaded) {
		return list, err
	}
	for _, look := range []func() error{l.device, l.ruleset, l.routes, l.programs} {
		if err := look(); err != nil {
			return list, err
		}
	}
	for _, s := range l.steps {
		done := Repaired{Device: name, Object: s.object, Wrong: s.wrong, Mended: true}
		switch {
		case s.mend == nil:
			done.Mended, done.Reason = false, unpublished
		case !dryRun:
			if err := s.mend(); err != nil {
				done.Mended, done.Reason = false, err.Error()
			}
		}
		list = append(list, done)
	}
	return list, nil
}

func (l *limited) add(object, wrong string, mend func() error) {
	l.steps = append(l.steps, step{object, wrong, mend})
}

func (l *limited) device() error {
	attrs := l.link.Attrs()
	object := "device " + attrs.Name
	if attrs.Alias != l.of.alias() {
		l.add(object, fmt.Sprintf("has the alias %q, not %q", attrs.Alias, l.of.alias()), func() error {
			return nlink.SetLink(attrs.Index, nlink.LinkChange{Alias: l.of.alias()})
		})
	}
	if attrs.RawFlags&ifUp == 0 {
		l.add(object, "is down", func() error { return nlink.SetLink(attrs.Index, nlink.LinkChange{Up: true}) })
	}
	for _, name := range []string{"ipv4/conf/" + attrs.Name + "/forwarding", "ipv4/conf/" + attrs.Name + "/proxy_arp"} {
		if !sysctlIs(name, "1") {
			l.add("sysctl net/"+name, "is not 1", func() error { return ensureSysctl(name, "1") })
		}
	}
	return nil
}

// ruleset looks at the table alone, which every ADD installs.
func (l *limited) ruleset() error {
	return withRuleset(func(rules *nat.Ruleset) error {
		err := rules.CheckTable()
		var wrong *nat.CheckError
		if !errors.As(err, &wrong) {
			return err
		}
		// One installation mends them all.
		l.add(wrong.Problems[0].Object, wrong.Problems[0].Wrong, func() (err error) {
			lock, err := lockNode()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, lock.Close()) }()
			return withRuleset((*nat.Ruleset).Install)
		})
		return nil
	})
}

func (l *limited) routes() error {
	index := l.link.Attrs().Index
	held, err := addressesOf(index)
	if err != nil {
		return err
	}
	mac, _ := containerEnd(l.link.Attrs())
	e := &Endpoint{Pair: Pair{Attachment: l.of, MAC: mac}, Index: index}
	for _, addr := range l.addresses {
		if !slices.Contains(held, addr) {
			l.add("route "+addr.String(), "is missing on the node", func() error { return e.addHostRoute(addr) })
		}
		neighs, err := netlink.NeighList(index, familyOf(addr))
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("list neighbours of %s: %w", l.link.Attrs().Name, err)
		}
		fits := func(n netlink.Neigh) bool { return n.IP.Equal(ipOf(addr)) && n.State&unix.NUD_FAILED == 0 }
		if mac != nil && !slices.ContainsFunc(neighs, fits) {
			l.add("neighbour "+addr.String(), "is missing", func() error { return e.setNeighbour(addr) })
		}
	}
	return nil
}

// programs publishes an address as another one of the same subnet and network is,
// and then puts the programs on a device that is published.
func (l *limited) programs() error {
	if l.node == nil {
		return nil
	}
	attrs := l.link.Attrs()
	_, _, err := l.node.LookupDevice(attrs.Index)
	if errors.Is(err, loader.ErrNotFound) {
		return nil // it may be one without programs
	}
	if err != nil {
		return err
	}
	for _, addr := range l.addresses {
		if _, err := l.node.Lookup(addr); !errors.Is(err, loader.ErrNotFound) {
			continue
		}
		entry, err := l.entryOfNeighbour(addr)
		if err != nil {
			return err
		}
		mend := func() error { return l.node.Upsert(addr, *entry) }
		if entry == nil {
			mend = nil
		}
		l.add("endpoint map entry "+addr.String(), "is missing", mend)
	}
	if err := l.node.Attached(attrs.Index); err != nil {
		l.add("program on "+attrs.Name, err.Error(), func() error {
			if err := published(l.node, attrs); err != nil {
				return err
			}
			_, err := loader.Site{}.AttachDevice(attrs.Index)
			return err
		})
	}
	return nil
}

// entryOfNeighbour returns the entry that an address should have, by that of an
// address of the same network and guarded subnet. Nil for none.
func (l *limited) entryOfNeighbour(addr netip.Addr) (*loader.Endpoint, error) {
	subnet, err := subnetOf(addr, nil)
	if err != nil || !subnet.IsValid() {
		return nil, err
	}
	endpoints, err := Endpoints()
	if err != nil {
		return nil, err
	}
	mac, mtu := containerEnd(l.link.Attrs())
	if mac == nil {
		return nil, nil
	}
	for _, other := range endpoints {
		if other.Network != l.of.Network || other.Index == l.link.Attrs().Index {
			continue
		}
		published, err := l.node.AddressesOf(other.Index)
		if err != nil {
			return nil, err
		}
		for _, theirs := range published {
			entry, err := l.node.Lookup(theirs)
			if err != nil || !subnet.Contains(theirs) {
				continue
			}
			entry.IfIndex, entry.MTU = l.link.Attrs().Index, mtu
			entry.ContainerMAC, entry.HostMAC = mac, l.of.hostMAC()
			entry.SourceCheck = l.link.Attrs().Group != GroupUnchecked
			entry.NetworkName = l.of.Network
			return &entry, nil
		}
	}
	return nil, nil
}
