// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The link groups of host veths ("zl", and the same for those whose source
// addresses are not checked).
const (
	group          = 31340
	groupUnchecked = 31341
)

// scan returns the sets on the node's host veths, one for each program.
func (n *Node) scan() ([]attachedSet, error) {
	indexes, err := devices()
	if err != nil {
		return nil, err
	}
	var sets []attachedSet
	byProgram := map[uint32]int{} // program id → place in sets
	for _, index := range indexes {
		ids, err := n.site.attachedIDs(index, fromEndpoint)
		if err != nil {
			if isGone(err) {
				continue
			}
			return nil, err
		}
		for _, id := range ids {
			place, known := byProgram[id]
			if !known {
				s, err := setByID(id)
				if err != nil {
					continue // somebody else's, or gone
				}
				place = len(sets)
				byProgram[id] = place
				sets = append(sets, attachedSet{set: s})
			}
			sets[place].devices = append(sets[place].devices, index)
		}
	}
	return sets, nil
}

// attachedSet returns the set whose program is attached to a device. Returns
// errNoProgram where there is none.
func (n *Node) attachedSet(index int) (*set, error) {
	ids, err := n.site.attachedIDs(index, fromEndpoint)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if s, err := setByID(id); err == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("device %d: %w", index, errNoProgram)
}

// devices returns the indexes of all host veths. The kernel filters by kind;
// only the group is read of each message.
func devices() ([]int, error) {
	for range 5 {
		indexes, err := dumpDevices()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return indexes, err
		}
	}
	// Someone makes devices all the time. A device missed in every list is one
	// that was not there during all of this.
	indexes, err := dumpDevices()
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		err = nil
	}
	return indexes, err
}

func dumpDevices() ([]int, error) {
	const skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, []byte("veth"))
	req.AddData(info)
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var indexes []int
	for _, message := range messages {
		attrs, parseErr := nl.ParseRouteAttr(message[unix.SizeofIfInfomsg:])
		if parseErr != nil {
			return nil, fmt.Errorf("list devices: %w", parseErr)
		}
		for _, attr := range attrs {
			if attr.Attr.Type != unix.IFLA_GROUP {
				continue
			}
			if g := nl.NativeEndian().Uint32(attr.Value); g == group || g == groupUnchecked {
				indexes = append(indexes, int(nl.DeserializeIfInfomsg(message).Index))
			}
		}
	}
	return indexes, err
}

// isGone says whether an error means that the device is no more.
func isGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO)
}
