// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nlink"
	"github.com/zipline-cni/zipline/loader"
)

// Inspected is an endpoint with what the programs and the container's end tell.
type Inspected struct {
	Attached
	// Forwarding is how its packets are carried, as published to the programs:
	// ForwardingDirect, ForwardingTracked, or ForwardingKernel where nothing is.
	Forwarding Forwarding
	// Tier is the most that its flows can be carried by.
	Tier loader.Tier
	// MACCheck says whether packets with another source MAC are dropped by the
	// programs.
	MACCheck bool
	// Entries are its addresses in the endpoints map. An address is missing
	// that is not published.
	Entries map[netip.Addr]loader.Endpoint
	// Programs are those on the host veth, ours and others'.
	Programs []loader.AttachedProgram
	// Wrong is nil, or says that the programs on the host veth are not the node's
	// ([loader.ErrDetached] and its like).
	Wrong error
	// Inside is the container's device, nil where it could not be read.
	Inside *Inside
	// Sent says what became of what the container sent; nil where nobody counts
	// it: the programs are not told of the endpoint, or came to know of it when
	// there was no place left to count.
	Sent *loader.Path
	// Netns is where the container's namespace can be entered.
	Netns NetnsPlace
}

// Inside is the container's end of the pair.
type Inside struct {
	Name string
	MAC  net.HardwareAddr
	Up   bool
	MTU  int
	// Received is all that came to the container, by the stack or by eBPF.
	Received Traffic
}

// ByEBPF is what the programs delivered to the container past the stack, and
// past the host veth: what the container's device received and the host veth
// did not send. Only a kernel that counts what bpf_redirect_peer delivers can
// tell (6.7, and stable ones with "bpf: Fix dev's rx stats for bpf_redirect_peer
// traffic"): on others it is nothing, and Received lacks it too.
func (i *Inspected) ByEBPF() Traffic {
	if i.Inside == nil {
		return Traffic{}
	}
	return i.Inside.Received.minus(i.ToContainer)
}

// minus never goes below zero: see inside.
func (t Traffic) minus(o Traffic) Traffic {
	return Traffic{t.Packets - min(t.Packets, o.Packets), t.Bytes - min(t.Bytes, o.Bytes)}
}

// Add adds o to t.
func (t *Traffic) Add(o Traffic) { t.Packets, t.Bytes = t.Packets+o.Packets, t.Bytes+o.Bytes }

// InspectOptions say what is worth its cost.
type InspectOptions struct {
	// Netns looks for the containers' namespaces among files and processes.
	Netns bool
}

// Inspect completes a list of endpoints by a few requests for each. What is gone
// meanwhile stays incomplete. node is nil where nothing is loaded.
func Inspect(list []Attached, node *loader.Node, opts InspectOptions) ([]Inspected, error) {
	entries, err := publishedEntries(node)
	if err != nil {
		return nil, err
	}
	paths, err := pathsOf(node)
	if err != nil {
		return nil, err
	}
	programs, err := loader.AttachedPrograms(indexesOf(list))
	if err != nil {
		return nil, err
	}
	inspected := make([]Inspected, 0, len(list))
	for _, a := range list {
		i := Inspected{Attached: a, Forwarding: ForwardingKernel, Tier: loader.TierKernel, Entries: entries[a.Index], Programs: programs[a.Index]}
		if i.Inside, err = inside(&i.Attached); err != nil {
			return nil, err
		}
		if path, ok := paths[a.Index]; ok {
			i.Sent = &path
		}
		i.readForwarding()
		i.Wrong = wrongPrograms(node, &i)
		inspected = append(inspected, i)
	}
	if opts.Netns {
		addNetns(inspected)
	}
	return inspected, nil
}

func pathsOf(node *loader.Node) (map[int]loader.Path, error) {
	if node == nil {
		return nil, nil
	}
	return node.Paths()
}

func indexesOf(list []Attached) []int {
	indexes := make([]int, len(list))
	for i, a := range list {
		indexes[i] = a.Index
	}
	return indexes
}

// FindNode opens the node's programs and maps, nil where there are none.
func FindNode(list []Attached) (*loader.Node, error) {
	index := 0
	if len(list) > 0 {
		index = list[0].Index // where pins are not visible, a device leads to them
	}
	node, err := loader.Find(index)
	if errors.Is(err, loader.ErrNotLoaded) && len(list) > 1 {
		node, err = loader.Find(0) // the first device's have been taken off
	}
	if errors.Is(err, loader.ErrNotLoaded) {
		return nil, nil
	}
	return node, err
}

func publishedEntries(node *loader.Node) (map[int]map[netip.Addr]loader.Endpoint, error) {
	byDevice := map[int]map[netip.Addr]loader.Endpoint{}
	if node == nil {
		return byDevice, nil
	}
	published, err := node.Published()
	if err != nil {
		return nil, err
	}
	for addr, entry := range published {
		if byDevice[entry.IfIndex] == nil {
			byDevice[entry.IfIndex] = map[netip.Addr]loader.Endpoint{}
		}
		byDevice[entry.IfIndex][addr] = entry
	}
	return byDevice, nil
}

// readForwarding says how the endpoint is carried: all of its addresses are
// published alike.
func (i *Inspected) readForwarding() {
	for _, entry := range i.Entries {
		i.MACCheck = i.MACCheck || entry.MACCheck
		switch {
		case entry.Direct:
			i.Forwarding = ForwardingDirect
		case entry.Tracked && i.Forwarding == ForwardingKernel:
			i.Forwarding = ForwardingTracked
		}
		switch {
		case entry.Tracked:
			i.Tier = loader.TierConntrack
		case entry.Direct && i.Tier == loader.TierKernel:
			i.Tier = loader.TierDirect
		}
	}
}

// wrongPrograms compares what is on the host veth with the node's programs. An
// endpoint that the kernel forwards needs none.
func wrongPrograms(node *loader.Node, i *Inspected) error {
	if node == nil || i.Forwarding == ForwardingKernel {
		return nil
	}
	if err := node.Attached(i.Index); err != nil && !isNotFound(err) {
		return err
	}
	return nil
}

// inside reads the container's device without entering its namespace, nil where
// it is gone. The host veth is read again after it until it has sent nothing in
// between, so that the difference of the two is not what the stack delivered in
// that moment; where there is no such moment, it is too little, never too much.
func inside(a *Attached) (*Inside, error) {
	if a.NetnsID < 0 || a.PeerIndex == 0 {
		return nil, nil
	}
	for try := 1; ; try++ {
		before := a.ToContainer
		in, err := readInside(a)
		if in == nil || err != nil {
			return nil, err
		}
		host, err := netlink.LinkByIndex(a.Index)
		if isNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read device %s: %w", a.HostDevice, err)
		}
		a.readTraffic(host.Attrs().Statistics)
		if a.ToContainer == before || try == dumpTries {
			return in, nil
		}
	}
}

func readInside(a *Attached) (*Inside, error) {
	attrs, err := nlink.LinkIn(a.NetnsID, a.PeerIndex)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil, nil // gone with its namespace
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil, nil // a namespace of a user namespace that is not ours
	}
	if err != nil {
		return nil, err
	}
	in := &Inside{Name: attrs.Name, MAC: attrs.HardwareAddr, Up: attrs.RawFlags&ifUp != 0, MTU: attrs.MTU}
	if s := attrs.Statistics; s != nil {
		in.Received = Traffic{s.RxPackets, s.RxBytes}
	}
	return in, nil
}

func addNetns(list []Inspected) {
	ids := make([]int, len(list))
	for i := range list {
		ids[i] = list[i].NetnsID
	}
	places := findNetns(ids)
	for i := range list {
		list[i].Netns = places[list[i].NetnsID]
	}
}
