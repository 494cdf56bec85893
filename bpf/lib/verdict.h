/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_VERDICT_H
#define ZIPLINE_VERDICT_H

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
