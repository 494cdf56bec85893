/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_VERDICT_H
#define ZIPLINE_VERDICT_H

/*
 * What a program leaves in skb->cb[4], the scratch space of tc programs, for
 * the tracer (trace.c) that looks at the packet as the program returns:
 * VERDICT_MARK | hook << 8 | reason. One store, where a function of its own
 * to attach to would take a call and a return, which some processors have to
 * make slow.
 */
#define VERDICT_MARK 0x7a6c0000

/**
 * verdict() - the one exit of a program: count the packet, return its verdict
 * @skb: the packet
 * @hook: which program this is
 * @reason: negative enum reason
 */
static __always_inline int verdict(struct __sk_buff *skb, enum hook hook, int reason)
{
	__u32 row = hook * REASONS + -reason;
	struct counter *counter;

	skb->cb[4] = VERDICT_MARK | hook << 8 | -reason;
	counter = bpf_map_lookup_elem(&counters, &row);
	if (counter) {
		counter->packets++;
		counter->bytes += skb->len;
	}
	if (-reason < REASON_DROP_FIRST)
		return TC_ACT_REDIRECT;
	if (-reason < REASON_NEXT_FIRST)
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

#endif
