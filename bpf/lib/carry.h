/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_CARRY_H
#define ZIPLINE_CARRY_H

/* The two ways on for a packet of an established flow: into a container of this node, or out by an uplink. */

/* A packet of an established flow to a container of this node. */
static __always_inline int carry_local(struct __sk_buff *skb, const struct packet *pkt,
				       const struct flow *flow, bool v4,
				       const struct endpoint *dest, bool uplink)
{
	int ret;

	if (dest->ifindex == skb->ifindex)
		return -REASON_NEXT_SELF;
	if (!(dest->flags & ENDPOINT_TRACKED))
		return -REASON_NEXT_NOT_TRACKED;
	if (flow->mark & dest->slow_path_mark)
		return -REASON_NEXT_SLOW_MARK;
	if (packet_size(skb, pkt) > dest->mtu)
		return -REASON_NEXT_MTU;
	ret = rewrite(skb, pkt, flow, v4, dest->mac, dest->host_mac, uplink);
	if (ret)
		return ret;
	skb->mark = 0;
	bpf_redirect_peer(dest->ifindex, 0);
	return -REASON_TRACKED_LOCAL;
}

/**
 * uplink_way() - by which uplink does a packet of an established flow leave?
 * @skb: the packet
 * @pkt: its headers
 * @flow: what conntrack makes of it
 * @v4: IPv4, else IPv6; a constant
 * @question: which
 * @way: set to the answer
 *
 * The kernel decides on the route after the destination has been translated
 * and before the source is.
 *
 * Return: 0, or a negative reason
 */
static __always_inline int uplink_way(struct __sk_buff *skb, const struct packet *pkt, const struct flow *flow,
				      bool v4, const struct question *question, struct way *way)
{
	__u64 tick = bpf_jiffies64();
	struct uplink *uplink;
	int ret;

	if (answer_known(question, way, sizeof(*way)))
		return 0;
	ret = flow_policy_routes(flow) ?: flow_xfrm(flow);
	if (ret)
		return ret;
	ret = route_ask(skb, question, skb->ifindex, packet_size(skb, pkt), v4, way);
	if (ret == BPF_FIB_LKUP_RET_NO_NEIGH)
		return -REASON_NEXT_NEIGHBOUR;
	if (ret == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return -REASON_NEXT_MTU;
	if (ret != BPF_FIB_LKUP_RET_SUCCESS)
		return -REASON_NEXT_ROUTE;
	uplink = uplink_lookup(way->ifindex);
	if (!uplink)
		return -REASON_NEXT_NOT_UPLINK;
	if (uplink->mtu && uplink->mtu < way->mtu)
		way->mtu = uplink->mtu;
	answer_keep(question, way, sizeof(*way), tick);
	return 0;
}

/* A packet of an established flow to somewhere else. */
static __always_inline int carry_uplink(struct __sk_buff *skb, const struct packet *pkt,
					const struct flow *flow, bool v4, const struct way *way)
{
	int ret;

	if (packet_size(skb, pkt) > way->mtu)
		return -REASON_NEXT_MTU;
	ret = rewrite(skb, pkt, flow, v4, way->dmac, way->smac, false);
	if (ret)
		return ret;
	bpf_redirect(way->ifindex, 0);
	return -REASON_TRACKED_UPLINK;
}

#endif
