//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * The tracer. While somebody traces, the loader/trace package has it in the
 * tracers map of the running programs (lib/verdict.h), whose last act is then to
 * jump here: it tells what was decided, and decides the same.
 */

#include "lib/types.h"
#include "lib/kernel.h"
#include "headers/bpf_helpers.h"
#include "headers/bpf_endian.h"
#include "lib/reason.h"
#include "lib/maps.h"
#include "lib/count.h"
#include "lib/verdict.h"
#include "lib/packet.h"
#include "lib/source.h"
#include "lib/arp.h"
#include "lib/conntrack.h"
#include "lib/observe.h"
#include "lib/wanted.h"

static __always_inline void trace_packet(struct __sk_buff *skb, __u32 hook, __u32 reason)
{
	struct event event = { .hook = hook, .reason = reason, .length = skb->len, .device = skb->ifindex };
	struct tuple first;

	if (!reason_wanted(reason))
		return;
	tuple_read(skb, &event.went);
	if (!protocol_wanted(&event.went))
		return;
	event_came(skb, &event, &first);
	event_endpoints(&event, &first);
	if (!event_wanted(&event))
		return;
	if (counting) {
		event_count(&event);
		return;
	}
	if (!event_sampled() || !event_allowed())
		return;
	event.time = bpf_ktime_get_ns();
	if (bpf_ringbuf_output(&trace_events, &event, sizeof(event), 0))
		stat_add(STAT_LOST);
}

SEC("tc")
int trace(struct __sk_buff *skb)
{
	__u32 word = skb->cb[4], reason = word & (REASONS - 1);

	trace_packet(skb, word >> 8 & 3, reason);
	return verdict_of(reason);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
