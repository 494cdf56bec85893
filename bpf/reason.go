// SPDX-License-Identifier: Apache-2.0

package bpf

import "fmt"

// Reason says why a packet met its verdict. It is the row of the packet's
// counter; lib/reason.h describes each.
type Reason = ZiplineReason

// Hook is a program that counts, an index as in enum hook of lib/reason.h.
type Hook uint8

// The programs that count.
const (
	HookEndpoint Hook = iota
	HookUplink
	HookDevice
)

// The rows of the counters map: each slot has Hooks times Reasons of
// them, and the row of a counter is (slot * Hooks + hook) * Reasons + reason.
const (
	Reasons      = 128
	Hooks        = 3
	NetworkSlots = 16
)

// PathSlots is how many rows the paths map has.
const PathSlots = 2048

// Verdict is what became of a packet.
type Verdict uint8

// The verdicts, as a reason implies them.
const (
	// VerdictRedirect: carried past the stack, or answered in its place.
	VerdictRedirect Verdict = iota
	// VerdictDrop: not delivered.
	VerdictDrop
	// VerdictNext: left to the next program and the stack.
	VerdictNext
)

// Verdict returns what a packet with this reason has met with. The ranges are
// those of lib/reason.h.
func (r ZiplineReason) Verdict() Verdict {
	switch {
	case r < ZiplineReasonREASON_DROP_FIRST:
		return VerdictRedirect
	case r < ZiplineReasonREASON_NEXT_FIRST:
		return VerdictDrop
	default:
		return VerdictNext
	}
}

// OwnAccount says whether packets with this reason are what a device says of its
// own accord, and of no traffic: address resolution, multicast.
func (r ZiplineReason) OwnAccount() bool {
	switch r {
	case ZiplineReasonREASON_ARP_REPLY, ZiplineReasonREASON_ND_REPLY,
		ZiplineReasonREASON_NEXT_ARP, ZiplineReasonREASON_NEXT_ND,
		ZiplineReasonREASON_NEXT_GROUP, ZiplineReasonREASON_NEXT_STACK_SOURCE:
		return true
	}
	return false
}

// String returns the reason in words that stand alone in a list of counters.
func (r ZiplineReason) String() string {
	if name, ok := reasonNames[r]; ok {
		return name
	}
	return fmt.Sprintf("reason %d", uint32(r))
}

// String returns the word for the verdict.
func (v Verdict) String() string {
	switch v {
	case VerdictRedirect:
		return "redirect"
	case VerdictDrop:
		return "drop"
	default:
		return "next"
	}
}

// String returns the name of the program.
func (h Hook) String() string {
	switch h {
	case HookUplink:
		return ZiplineProgFromUplink
	case HookDevice:
		return ZiplineProgToDevice
	default:
		return ZiplineProgFromEndpoint
	}
}

var reasonNames = map[Reason]string{
	ZiplineReasonREASON_DIRECT:            "carried directly to a neighbour",
	ZiplineReasonREASON_ARP_REPLY:         "arp request answered",
	ZiplineReasonREASON_ND_REPLY:          "neighbour solicitation answered",
	ZiplineReasonREASON_DROP_SOURCE:       "source address not leased to the device",
	ZiplineReasonREASON_DROP_MAC:          "source mac is not the endpoint's",
	ZiplineReasonREASON_DROP_ARP:          "arp sender address not leased to the device",
	ZiplineReasonREASON_DROP_VLAN:         "priority tag hides another tag",
	ZiplineReasonREASON_NEXT_ETHERTYPE:    "neither arp nor ip",
	ZiplineReasonREASON_NEXT_VLAN:         "vlan tag",
	ZiplineReasonREASON_NEXT_MALFORMED:    "malformed headers",
	ZiplineReasonREASON_NEXT_ARP:          "arp left to the stack",
	ZiplineReasonREASON_NEXT_ND:           "neighbour solicitation left to the stack",
	ZiplineReasonREASON_NEXT_STACK_SOURCE: "link-local or unspecified source",
	ZiplineReasonREASON_NEXT_UNCHECKED:    "foreign source on an unchecked device",
	ZiplineReasonREASON_NEXT_GROUP:        "multicast or broadcast",
	ZiplineReasonREASON_NEXT_OTHERHOST:    "frame for another mac",
	ZiplineReasonREASON_NEXT_FRAGMENT:     "fragment",
	ZiplineReasonREASON_NEXT_OPTIONS:      "ip options or extension headers",
	ZiplineReasonREASON_NEXT_TTL:          "ttl expired",
	ZiplineReasonREASON_NEXT_PROTOCOL:     "neither tcp nor udp",
	ZiplineReasonREASON_NEXT_NO_ENDPOINT:  "destination is no endpoint of this node",
	ZiplineReasonREASON_NEXT_SELF:         "destination is the source device",
	ZiplineReasonREASON_NEXT_NETWORK:      "destination in another network",
	ZiplineReasonREASON_NEXT_NOT_DIRECT:   "an end without direct forwarding",
	ZiplineReasonREASON_NEXT_MTU:          "larger than the destination's mtu",
	ZiplineReasonREASON_NEXT_CONNTRACK:    "conntrack lookup refused",

	ZiplineReasonREASON_TRACKED_LOCAL:        "established flow carried to a container",
	ZiplineReasonREASON_TRACKED_UPLINK:       "established flow carried to an uplink",
	ZiplineReasonREASON_DROP_REWRITE:         "translated in part only",
	ZiplineReasonREASON_NEXT_UNTRACKED:       "flow unknown to conntrack",
	ZiplineReasonREASON_NEXT_NOT_ESTABLISHED: "flow not established",
	ZiplineReasonREASON_NEXT_TCP_FLAGS:       "syn, fin or rst",
	ZiplineReasonREASON_NEXT_CHECK_IN:        "flow checks in with the stack",
	ZiplineReasonREASON_NEXT_SLOW_MARK:       "kept in the stack by its conntrack mark",
	ZiplineReasonREASON_NEXT_HELPER:          "flow with a conntrack helper",
	ZiplineReasonREASON_NEXT_OFFLOADED:       "flow in a flowtable",
	ZiplineReasonREASON_NEXT_NOT_TRACKED:     "an end forwarded by the kernel",
	ZiplineReasonREASON_NEXT_ROUTE:           "no plain route",
	ZiplineReasonREASON_NEXT_NEIGHBOUR:       "mac of the next hop unknown",
	ZiplineReasonREASON_NEXT_NOT_UPLINK:      "route to a device that is no uplink",
	ZiplineReasonREASON_NEXT_POLICY_ROUTES:   "node with ip rules of its own",
	ZiplineReasonREASON_NEXT_XFRM:            "node with ipsec policies",
	ZiplineReasonREASON_NEXT_CHECKSUM:        "checksum that the kernel cannot mend",
	ZiplineReasonREASON_NEXT_NONLINEAR:       "headers not in the linear part",
	ZiplineReasonREASON_NEXT_ADMITTED:        "came through the stack, flow admitted",
	ZiplineReasonREASON_NEXT_TIMEOUT:         "timeout that conntrack did not choose",
	ZiplineReasonREASON_NEXT_REVERSE_PATH:    "by another uplink than its answer",
	ZiplineReasonREASON_NEXT_OWN_SOURCE:      "from outside with the source of a container here",
}
