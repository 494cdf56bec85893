/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_REASON_H
#define ZIPLINE_REASON_H

/* The words for what became of a packet: the same for the programs, the loader and people. */

/**
 * enum reason - why a packet met its verdict
 *
 * Every packet leaves a program with exactly one reason, and the reason alone
 * decides the verdict: below REASON_DROP_FIRST the packet was redirected, below
 * REASON_NEXT_FIRST it is dropped, else it goes to the stack (TCX_NEXT).
 * Inner functions return 0 ("no opinion, go on") or a negative reason.
 *
 * The numbers are the indexes of the counters map, which outlives an upgrade:
 * never renumber, only append; a retired number stays reserved. bpf/reason.go
 * names each of them (a test compares the two).
 */
enum reason {
	/* redirected */
	REASON_DIRECT = 1, /* to a neighbour on this node */
	REASON_ARP_REPLY = 2, /* ARP request answered */
	REASON_ND_REPLY = 3, /* neighbour solicitation answered */
	REASON_TRACKED_LOCAL = 4, /* packet of an established flow, to a container */
	REASON_TRACKED_UPLINK = 5, /* packet of an established flow, to an uplink */

	/* dropped */
	REASON_DROP_FIRST = 32,
	REASON_DROP_SOURCE = 32, /* source address not leased to the device */
	REASON_DROP_MAC = 33, /* source MAC is not the endpoint's */
	REASON_DROP_ARP = 34, /* ARP sender address not leased to the device */
	REASON_DROP_VLAN = 35, /* priority tag hides another tag */
	REASON_DROP_REWRITE = 36, /* translated in part only: never seen */

	/* left to the stack */
	REASON_NEXT_FIRST = 64,
	REASON_NEXT_ETHERTYPE = 64, /* neither ARP nor IP */
	REASON_NEXT_VLAN = 65, /* VLAN tag */
	REASON_NEXT_MALFORMED = 66, /* headers cut off or senseless */
	REASON_NEXT_ARP = 67, /* ARP that is not ours to answer */
	REASON_NEXT_ND = 68, /* solicitation that is not ours to answer */
	REASON_NEXT_STACK_SOURCE = 69, /* link-local or unspecified source */
	REASON_NEXT_UNCHECKED = 70, /* foreign source, source check off */
	REASON_NEXT_GROUP = 71, /* multicast or broadcast */
	REASON_NEXT_OTHERHOST = 72, /* frame for another MAC */
	REASON_NEXT_FRAGMENT = 73, /* IP fragment */
	REASON_NEXT_OPTIONS = 74, /* IP options or extension headers */
	REASON_NEXT_TTL = 75, /* TTL or hop limit 0, or 1 where a hop is taken */
	REASON_NEXT_PROTOCOL = 76, /* neither TCP nor UDP */
	REASON_NEXT_NO_ENDPOINT = 77, /* destination is no endpoint here */
	REASON_NEXT_SELF = 78, /* destination is the source device */
	REASON_NEXT_NETWORK = 79, /* destination in another network */
	REASON_NEXT_NOT_DIRECT = 80, /* one end does not forward directly */
	REASON_NEXT_MTU = 81, /* larger than the destination's MTU */
	/* 82 was: conntrack knows the flow */
	REASON_NEXT_CONNTRACK = 83, /* conntrack lookup failed */
	REASON_NEXT_UNTRACKED = 84, /* conntrack does not know the flow */
	REASON_NEXT_NOT_ESTABLISHED = 85, /* flow opening or closing */
	REASON_NEXT_TCP_FLAGS = 86, /* SYN, FIN or RST */
	REASON_NEXT_CHECK_IN = 87, /* flow checks in with the stack */
	REASON_NEXT_SLOW_MARK = 88, /* conntrack mark keeps the flow in the stack */
	REASON_NEXT_HELPER = 89, /* flow has a conntrack helper */
	REASON_NEXT_OFFLOADED = 90, /* flow is in a flowtable */
	REASON_NEXT_NOT_TRACKED = 91, /* container is forwarded by the kernel */
	REASON_NEXT_ROUTE = 92, /* no plain route to the destination */
	REASON_NEXT_NEIGHBOUR = 93, /* next hop's MAC unknown */
	REASON_NEXT_NOT_UPLINK = 94, /* route leads to a device that is no uplink */
	REASON_NEXT_POLICY_ROUTES = 95, /* node has ip rules of its own */
	REASON_NEXT_XFRM = 96, /* node has IPsec policies */
	REASON_NEXT_CHECKSUM = 97, /* kernel cannot mend the checksum */
	REASON_NEXT_NONLINEAR = 98, /* headers not in the linear part */
	REASON_NEXT_ADMITTED = 99, /* came through the stack: flow may be carried */
	REASON_NEXT_TIMEOUT = 100, /* entry's timeout is not conntrack's own */
	REASON_NEXT_OWN_SOURCE = 101, /* from outside, with the source address of a container here */
	REASON_NEXT_REVERSE_PATH = 102, /* came in by another uplink than the answer goes out by */
};

/* Reasons that a program can count; the counters map has a row for each. */
#define REASONS 128

/**
 * enum hook - which program counts
 *
 * The row of a counter is (network slot * HOOKS + hook) * REASONS + reason.
 */
enum hook {
	HOOK_ENDPOINT = 0, /* from_endpoint */
	HOOK_UPLINK = 1, /* from_uplink */
	HOOK_DEVICE = 2, /* to_device */
};

#define HOOKS 3

/* Never read: a type that nothing refers to is missing from the object's BTF, from which Go has the names. */
volatile const enum reason reason_type = REASON_DIRECT;

#endif
