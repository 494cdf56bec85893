// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/datapath/conntrack"
	"github.com/zipline-cni/zipline/loader"
)

// judge decides about directions. Without programs on the node both of its
// parts are nil.
type judge struct {
	node    *loader.Node
	copies  *loader.Judge
	members map[netip.Addr]Member
	ways    map[netip.Addr]way
	links   map[int]device
}

// way is how packets of a source address come to the node.
type way struct {
	index int
	own   bool // the address is the node's
	lost  bool // no route leads there
}

// device is what is asked once about a device.
type device struct {
	name     string
	mac      net.HardwareAddr
	attached map[bpf.Hook]bool
}

// stranger is the source MAC of packets from outside.
var stranger = net.HardwareAddr{0x02, 0, 0, 0, 0, 1}

// newJudge finds the node's programs, if need be by an endpoint's device.
func newJudge(members map[netip.Addr]Member, index int) (*judge, error) {
	j := &judge{members: members, ways: map[netip.Addr]way{}, links: map[int]device{}}
	node, err := loader.Find(index)
	if errors.Is(err, loader.ErrNotLoaded) {
		return j, nil
	}
	if err != nil {
		return nil, err
	}
	if j.copies, err = node.NewJudge(); err != nil {
		return nil, errors.Join(err, node.Close())
	}
	j.node = node
	return j, nil
}

func (j *judge) close() error {
	if j.node == nil {
		return nil
	}
	return errors.Join(j.copies.Close(), j.node.Close())
}

// A direction that checks in is asked about again, as often and after this long: a
// carried one does so for an instant every two seconds.
const (
	askAgain      = 4
	askAgainAfter = 25 * time.Millisecond
)

func (j *judge) decideAll(flows []Flow) error {
	for round := 0; ; round++ {
		open := false
		for i := range flows {
			f := &flows[i]
			directions := []func() error{
				func() error { return j.decide(&f.ReplyPath, &f.Flow, f.Reply, f.Original.Source.Addr()) },
				func() error { return j.decide(&f.OriginalPath, &f.Flow, f.Original, f.Reply.Source.Addr()) },
			}
			// What comes from outside first: the copy of from_endpoint would tell
			// that of from_uplink that the container has just sent.
			if _, ok := j.members[f.Reply.Source.Addr()]; ok {
				slices.Reverse(directions)
			}
			for _, decide := range directions {
				if err := decide(); err != nil {
					return err
				}
			}
			refusedBy(&f.OriginalPath, &f.ReplyPath)
			refusedBy(&f.ReplyPath, &f.OriginalPath)
			open = open || f.OriginalPath.open() || f.ReplyPath.open()
		}
		if !open || round == askAgain {
			return nil
		}
		time.Sleep(askAgainAfter)
	}
}

// refusedBy completes p where the program refuses the other direction for a reason
// that has nothing to do with its admission.
func refusedBy(p, other *Path) {
	refused := other.Reason != 0 && other.Verdict == bpf.VerdictNext && other.Reason != bpf.ZiplineReasonREASON_NEXT_CHECK_IN && other.Detail == ""
	if p.Reason == bpf.ZiplineReasonREASON_NEXT_CHECK_IN && p.Detail == "" && refused {
		p.Detail = DetailRefused
	}
}

// open says that another answer may come.
func (p *Path) open() bool {
	return p.Why == "" || p.Reason == bpf.ZiplineReasonREASON_NEXT_CHECK_IN && p.Detail == ""
}

// decide sets the path where it is open. An entry that is gone since keeps what
// was said of it.
func (j *judge) decide(p *Path, f *conntrack.Flow, t conntrack.Tuple, target netip.Addr) error {
	if !p.open() {
		return nil
	}
	now, err := j.path(f, t, target)
	if err != nil {
		return err
	}
	if p.Why == "" || now.Reason != bpf.ZiplineReasonREASON_NEXT_UNTRACKED {
		*p = now
	}
	return nil
}

// path decides about the direction whose packets look like t when they arrive,
// and end at an address.
func (j *judge) path(f *conntrack.Flow, t conntrack.Tuple, target netip.Addr) (Path, error) {
	p := Path{Verdict: bpf.VerdictNext, Hook: bpf.HookUplink}
	w := j.way(t.Source.Addr())
	if m, ok := j.members[t.Source.Addr()]; ok {
		p.Hook, w = bpf.HookEndpoint, way{index: m.Index}
	}
	switch {
	case w.own:
		p.Why = WhyNode
		return p, nil
	case w.lost:
		p.Why = WhyNoRoute
		return p, nil
	}
	d, err := j.device(w.index)
	if err != nil {
		return Path{}, err
	}
	p.Device = d.name
	if !d.attached[p.Hook] {
		p.Why = WhyNoPrograms
		if p.Hook == bpf.HookUplink {
			p.Why = WhyNoUplink
		}
		return p, nil
	}
	from, to := stranger, d.mac
	if p.Hook == bpf.HookEndpoint {
		// What is not published has no MAC, and the program says so first.
		if e, err := j.node.Lookup(t.Source.Addr()); err == nil {
			from, to = e.ContainerMAC, e.HostMAC
		}
	}
	if p.Reason, err = j.copies.Ask(p.Hook, w.index, frame(f.Protocol, t, from, to)); err != nil {
		return Path{}, err
	}
	if _, ok := j.members[target]; ok && p.Reason == bpf.ZiplineReasonREASON_NEXT_NO_ENDPOINT && p.Hook == bpf.HookUplink {
		p.Detail = DetailPort
	}
	if p.Reason == bpf.ZiplineReasonREASON_NEXT_CHECK_IN {
		if err := j.explainCheckIn(&p, target); err != nil {
			return Path{}, err
		}
	}
	p.Verdict, p.Why = p.Reason.Verdict(), p.Reason.String()
	p.Carried = p.Verdict == bpf.VerdictRedirect
	return p, nil
}

// explainCheckIn finds out whether to_device can ever see the direction's packets.
// That it does and refuses (a timeout policy, which ctnetlink does not tell) only
// its counters say.
func (j *judge) explainCheckIn(p *Path, target netip.Addr) error {
	w := j.way(target)
	if w.own || w.lost {
		if w.own {
			p.Detail = DetailToNode
		}
		return nil
	}
	d, err := j.device(w.index)
	if err == nil && !d.attached[bpf.HookEndpoint] && !d.attached[bpf.HookUplink] {
		p.Detail = DetailNoPrograms
	}
	return err
}

// way finds the device that packets of a source come by: the one that the
// answer goes out by. More than one can be told by nobody in advance.
func (j *judge) way(source netip.Addr) way {
	w, ok := j.ways[source]
	if ok {
		return w
	}
	routes, err := netlink.RouteGet(source.AsSlice())
	switch {
	case err != nil || len(routes) == 0:
		w.lost = true
	case routes[0].Type == unix.RTN_LOCAL:
		w.own = true
	default:
		w.index = routes[0].LinkIndex
	}
	j.ways[source] = w
	return w
}

func (j *judge) device(index int) (device, error) {
	if d, ok := j.links[index]; ok {
		return d, nil
	}
	d := device{attached: map[bpf.Hook]bool{}}
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		// Gone since: no packet comes by it.
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			d.name = "#" + strconv.Itoa(index)
			return d, nil
		}
		return d, fmt.Errorf("read device %d: %w", index, err)
	}
	d.name, d.mac = link.Attrs().Name, link.Attrs().HardwareAddr
	if j.node != nil {
		// With another version of the programs as good as with this one.
		good := func(err error) bool { return err == nil || errors.Is(err, loader.ErrOtherVersion) }
		d.attached[bpf.HookEndpoint] = good(j.node.Attached(index))
		d.attached[bpf.HookUplink] = good(j.node.UplinkAttached(index))
	}
	j.links[index] = d
	return d, nil
}
