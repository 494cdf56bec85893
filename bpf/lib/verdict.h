/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_VERDICT_H
#define ZIPLINE_VERDICT_H

/* The one exit of the programs: a reason becomes a count, a verdict and, while somebody traces, an event. */

/*
 * What a program leaves in skb->cb[4], the scratch space of tc programs, for
 * the tracer (trace.c): VERDICT_MARK | hook << 8 | reason.
 */
#define VERDICT_MARK 0x7a6c0000

/*
 * The tracers, by hook. Not pinned: the kernel empties it when the process that
 * traces closes it or dies. While it is empty, the tail call is a check of its
 * count and a nop where the jump would be.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, HOOKS);
	__type(key, __u32);
	__type(value, __u32);
} tracers SEC(".maps");

/* What a reason implies. */
static __always_inline int verdict_of(__u32 reason)
{
	if (reason < REASON_DROP_FIRST)
		return TC_ACT_REDIRECT;
	if (reason < REASON_NEXT_FIRST)
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

/**
 * verdict() - the one exit of a program: count the packet, return its verdict
 * @skb: the packet
 * @hook: which program this is
 * @reason: negative enum reason
 */
static __always_inline int verdict(struct __sk_buff *skb, enum hook hook, int reason)
{
	skb->cb[4] = VERDICT_MARK | hook << 8 | -reason;
	count(skb, hook, -reason);
	bpf_tail_call_static(skb, &tracers, hook);
	return verdict_of(-reason);
}

#endif
