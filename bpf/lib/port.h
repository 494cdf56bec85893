/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_PORT_H
#define ZIPLINE_PORT_H

/*
 * Most of what comes in by an uplink of many a node is the node's own, and a
 * look at conntrack costs more than all the rest. A packet for a container
 * either has the container's address, or a port behind which conntrack hides
 * one. from_endpoint, which sees the container's half of the flow anyway, notes
 * that port here; from_uplink asks conntrack about recent ones, and once in a
 * while about each of the others, for flows to containers that do not answer.
 *
 * It is a hint, no state: one that is missing leaves a packet to the stack, one
 * too many costs a look-up.
 */

/* How long a port is remembered, in seconds: longer than any flow stays away from the stack. */
#define PORT_SECONDS 8

/* 256 jiffies: a byte then counts 4 to 11 minutes, and is cheap to make. */
#define PORT_CLOCK_SHIFT 8

static __always_inline __u8 port_clock(void)
{
	return bpf_jiffies64() >> PORT_CLOCK_SHIFT;
}

static __always_inline struct nat_ports *port_table(void)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&nat_ports, &only);
}

/* A container is reached by this port. Written when it says something new: the line is shared by all CPUs. */
static __always_inline void port_note(__be16 port)
{
	struct nat_ports *table = port_table();
	__u8 now = port_clock();

	if (table && table->port[port].seen != now)
		table->port[port].seen = now;
}

/* Was a container reached by this port lately? */
static __always_inline bool port_recent(__be16 port)
{
	struct nat_ports *table = port_table();

	if (!table)
		return true;
	return (__u8)(port_clock() - table->port[port].seen) <= (PORT_SECONDS * tick_hz >> PORT_CLOCK_SHIFT) + 1;
}

/* Is conntrack to be asked once more whether a container is reached by this port? */
static __always_inline bool port_ask(__be16 port)
{
	struct nat_ports *table = port_table();
	__u8 now = port_clock();

	if (!table)
		return true;
	if (table->port[port].asked == now)
		return false;
	table->port[port].asked = now;
	return true;
}

#endif
