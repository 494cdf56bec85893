/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_TURN_H
#define ZIPLINE_TURN_H

/*
 * When flows begin and end. There one packet of a tick is the consequence of
 * another, and what conntrack said before in the tick (lib/answer.h) does not
 * hold: it has to see the last ACK of a connection, which follows from a FIN; and
 * the answer to a packet that opened a translated flow has to be translated. So
 * such packets note the tick: who ends a connection under its two ends, as they
 * are where the packet comes from, and who opens a flow under its own end, as
 * nobody knows yet what the other one will be. Answers look there.
 *
 * The note is made before the packet goes on, and what follows from it comes
 * after, on whatever CPU. Conntrack may see the packet a tick later than the
 * program did, so a note holds for two. Flows that share a note by their hash ask
 * conntrack again, nothing else; most do where 100,000 connections a second begin
 * and end on the node.
 */

#define TURNS 8192
#define TURNS_SHIFT 19 /* of a hash of 32 bits */

/* The tick of the last turn, in jiffies. Each load has its own. */
static __u32 turns[TURNS];

/* Who opens a flow: its end of it. */
static __always_inline __u32 turn_end(const struct address *addr, __be16 port)
{
	return addr->w[3] ^ addr->w[2] ^ addr->w[1] ^ port;
}

/* A connection, in both directions the same. */
static __always_inline __u32 turn_ends(const struct address *saddr, const struct address *daddr,
				       const struct ports *ports)
{
	return turn_end(saddr, ports->source) + turn_end(daddr, ports->dest);
}

/* Written when it says something new: the line is shared by all CPUs. */
static __always_inline void turn_note(__u32 whose)
{
	__u32 now = bpf_jiffies64(), *turn = &turns[whose * 0x9e3779b1 >> TURNS_SHIFT];

	if (*turn != now)
		*turn = now;
}

static __always_inline bool turn_recent(__u32 whose)
{
	return (__u32)bpf_jiffies64() - turns[whose * 0x9e3779b1 >> TURNS_SHIFT] <= 1;
}

#endif
