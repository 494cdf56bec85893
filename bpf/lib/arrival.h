/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_ARRIVAL_H
#define ZIPLINE_ARRIVAL_H

/*
 * What the stack asks of a packet from outside before it believes it, and the
 * conntrack entry does not say. The answer holds for a tick (answer.h).
 */

/* Does the answer leave by the device that the packet came by? */
static __always_inline int reverse_path(struct __sk_buff *skb, const struct question *back, const struct flow *flow,
					bool v4, const struct endpoint *dest)
{
	struct uplink *uplink = uplink_lookup(skb->ifindex);
	struct way way;
	int ret;

	if (!uplink)
		return -REASON_NEXT_NOT_UPLINK;
	if (!uplink->several)
		return 0;
	ret = flow_policy_routes(flow);
	if (ret)
		return ret;
	if (route_ask(skb, back, dest->ifindex, 0, v4, &way) != BPF_FIB_LKUP_RET_SUCCESS ||
	    way.ifindex != skb->ifindex)
		return -REASON_NEXT_REVERSE_PATH;
	return 0;
}

/**
 * arrival() - may a packet of an established flow come in by this uplink?
 * @skb: the packet
 * @pkt: its headers
 * @flow: what conntrack makes of it
 * @v4: IPv4, else IPv6; a constant
 * @dest: the container that it goes to
 *
 * Whether the node believes a container's address from outside (rp_filter) is
 * the stack's to say. And a direction is admitted by whichever uplink its packet
 * came in: with more than one, rp_filter or a rule may refuse the next one.
 *
 * Return: 0 if so, else a negative reason
 */
static __always_inline int arrival(struct __sk_buff *skb, const struct packet *pkt, const struct flow *flow,
				   bool v4, const struct endpoint *dest)
{
	/* The answer's way. */
	struct question back = {
		.saddr = flow->daddr,
		.daddr = pkt->saddr,
		.ifindex = skb->ifindex,
		.about = ABOUT_ARRIVAL,
	};
	__u64 tick = bpf_jiffies64();
	int ret;

	if (answer_known(&back, NULL, 0))
		return 0;
	ret = flow_xfrm(flow);
	if (ret)
		return ret;
	if (endpoint_lookup(&pkt->saddr))
		return -REASON_NEXT_OWN_SOURCE;
	ret = reverse_path(skb, &back, flow, v4, dest);
	if (ret)
		return ret;
	answer_keep(&back, NULL, 0, tick);
	return 0;
}

#endif
