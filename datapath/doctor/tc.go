// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

// filterPriority is the priority of our filters where there is no TCX.
const filterPriority = 31340

// mostDevices bounds how many host veths are looked at: who attaches to them
// attaches to all.
const mostDevices = 64

// hook is a side of a device.
type hook struct {
	name   string
	tcx    ebpf.AttachType
	clsact uint32
	// hidden says that a program behind ours sees nothing of what is carried:
	// it was sent elsewhere before.
	hidden bool
}

var (
	ingress = hook{"ingress", ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS, true}
	// What leaves by an uplink passes this side, redirected or not.
	uplinkEgress = hook{"egress", ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS, false}
	// What is delivered to a container by redirect does not.
	vethEgress = hook{"egress", ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS, true}
)

var ownPrograms = []string{bpf.ZiplineProgFromEndpoint, bpf.ZiplineProgFromUplink, bpf.ZiplineProgToDevice}

func checkTC(n *node) []Finding {
	if !mayTry() {
		return skipped(errUnprivileged)
	}
	uplinks, err := n.uplinks()
	if err != nil {
		return skipped(err)
	}
	links, err := n.links()
	if err != nil {
		return skipped(err)
	}
	var findings []Finding
	for _, u := range uplinks {
		if u.ethernet() {
			findings = append(findings, lookAt(u.Link, ingress)...)
			findings = append(findings, lookAt(u.Link, uplinkEgress)...)
		}
	}
	looked := 0
	for _, l := range links {
		if !ours(l) || looked == mostDevices {
			continue
		}
		looked++
		findings = append(findings, lookAt(l, ingress)...)
		findings = append(findings, lookAt(l, vethEgress)...)
	}
	if looked == mostDevices && n.count() > mostDevices {
		findings = append(findings, Finding{Level: Info, Found: fmt.Sprintf("looked at %d of %d host veths", looked, n.count())})
	}
	return orOK(findings, "none; looked at uplinks (%d) and host veths (%d)", len(uplinks), looked)
}

// attachment is a program or filter on a hook, in the order in which they run.
type attachment struct {
	name string
	own  bool
}

// lookAt says who else is on a hook of a device, and on which side of us.
func lookAt(l netlink.Link, h hook) []Finding {
	all, place, err := attachments(l, h)
	if err != nil {
		if errors.Is(err, unix.ENODEV) {
			return nil // gone since
		}
		return skipped(fmt.Errorf("%s %s: %w", l.Attrs().Name, h.name, err))
	}
	own := slices.IndexFunc(all, func(a attachment) bool { return a.own })
	at := own
	if own < 0 {
		at = place
	}
	var before, after []string
	for i, a := range all {
		switch {
		case a.own:
		case i < at:
			before = append(before, a.name)
		default:
			after = append(after, a.name)
		}
	}
	subject := l.Attrs().Name + " " + h.name
	var findings []Finding
	if len(before) > 0 {
		findings = append(findings, Finding{
			Level: Info, Subject: subject, Found: list(before) + " before zipline",
			Means: "sees every packet first; those that it does not hand on (TCX_NEXT, TC_ACT_UNSPEC) are not carried",
		})
	}
	if len(after) > 0 {
		f := Finding{Level: Info, Subject: subject, Found: list(after) + " behind zipline", Means: "sees every packet, as zipline hands all on here"}
		if h.hidden {
			f.Level, f.Means = Warning, "does not see the packets that eBPF carries"
			f.Advice = "attach it by TCX before zipline's program (BPF_F_BEFORE), or, where it must see every packet in the stack, \"forwarding\": \"kernel\""
		}
		findings = append(findings, f)
	}
	return findings
}

// attachments returns what is on a hook, in order: TCX programs, then filters by
// priority. The second result is where ours comes, or will: behind the TCX
// programs of others or, without TCX, at its priority.
func attachments(l netlink.Link, h hook) (all []attachment, place int, err error) {
	result, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: h.tcx})
	noTCX := errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported)
	switch {
	case noTCX:
		result = &link.QueryResult{}
	case err != nil:
		return nil, 0, fmt.Errorf("query tcx: %w", err)
	}
	for _, p := range result.Programs {
		name := programName(p.ID)
		all = append(all, attachment{fmt.Sprintf("TCX program %s (id %d)", name, p.ID), slices.Contains(ownPrograms, name)})
	}
	place = len(all)
	filters, err := netlink.FilterList(l, h.clsact)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return all, place, nil // no clsact
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list filters: %w", err)
	}
	slices.SortStableFunc(filters, func(a, b netlink.Filter) int { return int(a.Attrs().Priority) - int(b.Attrs().Priority) })
	for _, f := range filters {
		a := describe(f)
		if slices.Contains(all, a) {
			continue // a u32 or flower filter is listed with its tables
		}
		if all = append(all, a); noTCX && f.Attrs().Priority < filterPriority {
			place = len(all)
		}
	}
	return all, place, nil
}

func describe(f netlink.Filter) attachment {
	p, isBPF := f.(*netlink.BpfFilter)
	if !isBPF {
		return attachment{name: fmt.Sprintf("%s filter (priority %d)", f.Type(), f.Attrs().Priority)}
	}
	return attachment{
		name: fmt.Sprintf("bpf filter %s (priority %d)", p.Name, f.Attrs().Priority),
		own:  f.Attrs().Priority == filterPriority && strings.HasPrefix(p.Name, "zipline/"),
	}
}

func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "?"
	}
	defer func() { _ = p.Close() }() // only read from
	info, err := p.Info()
	if err != nil {
		return "?"
	}
	return info.Name
}
