/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_CARRY_H
#define ZIPLINE_CARRY_H

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
 * carry_uplink() - a packet of an established flow to somewhere else
 * @skb: the packet
 * @pkt: its headers
 * @flow: what conntrack makes of it
 * @v4: IPv4, else IPv6; a constant
 *
 * The kernel decides on the route after the destination has been translated
 * and before the source is. A rule may choose the route by what only the stack
 * knows (a mark set by netfilter), and an IPsec policy may want the packet
 * encrypted: with either of them on the node the stack forwards.
 *
 * Return: negative reason
 */
static __always_inline int carry_uplink(struct __sk_buff *skb, const struct packet *pkt,
					  const struct flow *flow, bool v4)
{
	struct bpf_fib_lookup fib = {};
	struct uplink *uplink;
	int ret;

	if (flow->policy_routes)
		return -REASON_NEXT_POLICY_ROUTES;
	if (flow->xfrm)
		return -REASON_NEXT_XFRM;
	fib.l4_protocol = pkt->protocol;
	fib.sport = pkt->ports.source;
	fib.dport = flow->ports.dest;
	ret = packet_size(skb, pkt);
	fib.tot_len = ret > 0xffff ? 0xffff : ret;
	fib.ifindex = skb->ifindex;
	if (v4) {
		fib.family = AF_INET;
		fib.tos = pkt->traffic;
		fib.src[0] = pkt->saddr.w[3];
		fib.dst[0] = flow->daddr.w[3];
	} else {
		fib.family = AF_INET6;
		fib.flowinfo = pkt->traffic & bpf_htonl(IPV6_FLOWINFO_MASK);
		__builtin_memcpy(fib.src, pkt->saddr.w, sizeof(fib.src));
		__builtin_memcpy(fib.dst, flow->daddr.w, sizeof(fib.dst));
	}
	ret = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (ret == BPF_FIB_LKUP_RET_NO_NEIGH)
		return -REASON_NEXT_NEIGHBOUR;
	if (ret == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return -REASON_NEXT_MTU;
	if (ret != BPF_FIB_LKUP_RET_SUCCESS)
		return -REASON_NEXT_ROUTE;
	uplink = uplink_lookup(fib.ifindex);
	if (!uplink)
		return -REASON_NEXT_NOT_UPLINK;
	if (uplink->mtu && packet_size(skb, pkt) > uplink->mtu)
		return -REASON_NEXT_MTU;
	ret = rewrite(skb, pkt, flow, v4, fib.dmac, fib.smac, false);
	if (ret)
		return ret;
	bpf_redirect(fib.ifindex, 0);
	return -REASON_TRACKED_UPLINK;
}

#endif
