// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/datapath/conntrack"
)

// What no program can say, because none sees the packet there.
const (
	// WhyNode: the node's own packets begin in the stack.
	WhyNode = "sent by the node itself"
	// WhyNoPrograms: nothing is loaded, or nothing on this device.
	WhyNoPrograms = "no program on the device"
	// WhyNoUplink: it comes by a device that is no uplink.
	WhyNoUplink = "comes by a device that is no uplink"
	// WhyNoRoute: the node cannot answer, so nothing can come from there.
	WhyNoRoute = "no route to the sender"
)

// What keeps a direction from being carried for more than an instant.
const (
	// DetailRefused: a refused packet takes the admission of the other direction away
	// (flow_read in bpf/lib/flow.h).
	DetailRefused = "as long as the other direction is refused"
	// DetailToNode: its packets end in the stack, so to_device sees none of them.
	DetailToNode = "ends at the node itself"
	// DetailPort: of a port behind which no container has sent lately the programs ask
	// conntrack once in a while only (bpf/lib/port.h).
	DetailPort = "until the container sends, or for a moment"
	// DetailNoPrograms: they leave by a device that has no to_device.
	DetailNoPrograms = "leaves by a device without our programs"
)

// Path is what becomes of the next packet of a direction.
type Path struct {
	// Carried says that it passes the stack by.
	Carried bool
	// Verdict is the program's, next where no program sees the packet.
	Verdict bpf.Verdict
	// Reason is the program's; 0 where no program sees the packet.
	Reason bpf.Reason
	// Why is the reason in words, and Detail what is known beyond it.
	Why, Detail string
	// Device is the name of the device that it comes in by; empty for the node's own.
	Device string
	// Hook is the program that sees it there, if Reason is not 0.
	Hook bpf.Hook
}

// Member is an endpoint at an end of a flow. Flows share it: there may be a hundred
// thousand of one endpoint.
type Member struct {
	*datapath.Attached
	Address netip.Addr
}

// Flow is a flow of an endpoint.
type Flow struct {
	conntrack.Flow
	// Members has the endpoint that opened the flow and the one where it ends;
	// at least one of them, the opener first.
	Members []Member
	// Original and Reply are the paths of the two directions.
	OriginalPath, ReplyPath Path
}

// SNAT returns the address and port that the flow leaves with in place of its
// own source, if it is translated.
func (f *Flow) SNAT() (to netip.AddrPort, ok bool) {
	return f.Reply.Destination, f.Reply.Destination != f.Original.Source
}

// DNAT returns the address and port that the flow was opened to in place of
// where it ends, if it is translated.
func (f *Flow) DNAT() (from netip.AddrPort, ok bool) {
	return f.Original.Destination, f.Reply.Source != f.Original.Destination
}

// Carried says whether any direction is carried.
func (f *Flow) Carried() bool { return f.OriginalPath.Carried || f.ReplyPath.Carried }

// List returns the flows of the calling thread's node that keep is true for, in
// the order of network, address, protocol and ports. It tells keep no paths yet.
func List(keep func(*Flow) bool) (_ []Flow, err error) {
	members, err := members()
	if err != nil {
		return nil, err
	}
	var flows []Flow
	err = conntrack.Flows(func(c conntrack.Flow) {
		f := Flow{Flow: c, Members: membersOf(members, c)}
		if len(f.Members) > 0 && keep(&f) {
			flows = append(flows, f)
		}
	})
	if err != nil || len(flows) == 0 {
		return nil, err
	}
	j, err := newJudge(members, flows[0].Members[0].Index)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	if err := j.decideAll(flows); err != nil {
		return nil, err
	}
	slices.SortStableFunc(flows, compare)
	return flows, nil
}

func compare(a, b Flow) int {
	return cmp.Or(
		cmp.Compare(a.Members[0].Network, b.Members[0].Network), a.Members[0].Address.Compare(b.Members[0].Address),
		cmp.Compare(a.Protocol, b.Protocol), a.Original.Source.Compare(b.Original.Source),
		a.Original.Destination.Compare(b.Original.Destination), cmp.Compare(a.ID, b.ID),
	)
}

// members returns the endpoints by address, as the kernel's routes have it: also
// those that no program knows.
func members() (map[netip.Addr]Member, error) {
	endpoints, err := datapath.Endpoints()
	if err != nil {
		return nil, err
	}
	members := map[netip.Addr]Member{}
	for _, e := range endpoints {
		for _, addr := range e.Addresses {
			members[addr] = Member{&e, addr}
		}
	}
	return members, nil
}

// membersOf finds where the flow was opened and where it ends, whatever
// addresses it shows in between.
func membersOf(members map[netip.Addr]Member, c conntrack.Flow) (found []Member) {
	for _, addr := range []netip.Addr{c.Original.Source.Addr(), c.Reply.Source.Addr()} {
		if m, ok := members[addr]; ok && (len(found) == 0 || found[0].Address != addr) {
			found = append(found, m)
		}
	}
	return found
}
