/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_FORWARD_H
#define ZIPLINE_FORWARD_H

/* Steps 4 to 6 of a packet's way (docs/architecture.md): what conntrack knows of it decides whether it is carried. */

/**
 * forward_direct() - a packet that conntrack does not know, between neighbours
 * @skb: the packet
 * @pkt: its headers
 * @source: the endpoint it comes from
 *
 * Return: negative reason
 */
static __always_inline int forward_direct(struct __sk_buff *skb, const struct packet *pkt,
					  const struct endpoint *source)
{
	struct endpoint *dest;
	int ret;

	ret = local_destination(skb, source, &pkt->daddr, &dest);
	if (ret)
		return ret;
	if (packet_size(skb, pkt) > dest->mtu)
		return -REASON_NEXT_MTU;
	return local_deliver(skb, dest);
}

/* What an uplink may not bring to a container past the stack. */
static __always_inline int forward_inbound(struct __sk_buff *skb, const struct packet *pkt,
					   const struct flow *flow, bool v4, const struct endpoint *dest)
{
	int ret;

	count_for(skb, &dest->slots);
	ret = arrival(skb, pkt, flow, v4, dest);
	if (ret)
		return ret;
	/* The container may never answer. */
	port_note(pkt->ports.dest);
	return carry_local(skb, pkt, flow, v4, dest, true);
}

/**
 * forward_tracked() - a packet of a flow that conntrack calls established
 * @skb: the packet
 * @pkt: its headers
 * @flow: what conntrack makes of it
 * @v4: IPv4, else IPv6; a constant
 * @source: the endpoint it comes from; NULL: it comes from an uplink
 *
 * Return: negative reason
 */
static __always_inline int forward_tracked(struct __sk_buff *skb, const struct packet *pkt,
					   const struct flow *flow, bool v4,
					   const struct endpoint *source)
{
	struct endpoint *dest;
	struct route_key key;
	struct way way;
	int ret;

	if (pkt->ttl <= 1)
		return -REASON_NEXT_TTL;
	if (source && !(source->flags & ENDPOINT_TRACKED))
		return -REASON_NEXT_NOT_TRACKED;
	if (source && flow->mark & source->slow_path_mark)
		return -REASON_NEXT_SLOW_MARK;
	if (!v4 && address_v4_mapped(&flow->daddr))
		return -REASON_NEXT_NO_ENDPOINT;
	if (!source) {
		dest = endpoint_lookup(&flow->daddr);
		return dest ? forward_inbound(skb, pkt, flow, v4, dest) : -REASON_NEXT_NO_ENDPOINT;
	}
	key = (struct route_key){ pkt->saddr, flow->daddr, pkt->traffic, skb->ifindex, pkt->protocol, 0 };
	/* What has its source translated leaves the node, but for rare ones. */
	if (!address_equal(&pkt->saddr, &flow->saddr, v4) && route_known(&key, &way))
		return carry_uplink(skb, pkt, flow, v4, &way);
	dest = endpoint_lookup(&flow->daddr);
	if (dest)
		return carry_local(skb, pkt, flow, v4, dest, false);
	ret = uplink_way(skb, pkt, flow, v4, &key, &way);
	return ret ?: carry_uplink(skb, pkt, flow, v4, &way);
}

/*
 * Also of packets that check in: an answer that nobody asks about goes through
 * the stack, and takes away what they are admitted by.
 */
static __always_inline void forward_note(struct __sk_buff *skb, const struct packet *pkt, const struct flow *flow,
					 bool v4, const struct endpoint *source)
{
	struct endpoint *dest;

	if (!source) {
		dest = endpoint_lookup(&flow->daddr);
		if (!dest)
			return;
		count_for(skb, &dest->slots);
		port_note(pkt->ports.dest);
		return;
	}
	if (pkt->ports.source != flow->ports.source || !address_equal(&pkt->saddr, &flow->saddr, v4))
		port_note(flow->ports.source);
}

/* A packet that conntrack has an entry for. */
static __always_inline int forward_flow(struct __sk_buff *skb, const struct packet *pkt, const struct nf_conn *ct,
					__u8 dir, bool v4, const struct endpoint *source)
{
	struct flow flow;
	int ret;

	ret = flow_read(ct, dir, pkt, v4, &flow);
	if (ret == -REASON_NEXT_CHECK_IN || (!ret && source))
		forward_note(skb, pkt, &flow, v4, source);
	if (!ret)
		ret = forward_tracked(skb, pkt, &flow, v4, source);
	if (-ret >= REASON_NEXT_FIRST)
		skb->tc_index = flow.admit;
	return ret;
}

/* What comes in by an uplink is for a container only if its address or its port says so. */
static __always_inline bool forward_asks(struct __sk_buff *skb, const struct packet *pkt)
{
	struct endpoint *dest;

	if (port_recent(pkt->ports.dest))
		return true;
	dest = endpoint_lookup(&pkt->daddr);
	if (!dest)
		return port_ask(pkt->ports.dest);
	count_for(skb, &dest->slots);
	return true;
}

/* A packet from outside that conntrack does not know: still somebody's, if its address is a container's. */
static __always_inline int forward_arrives(struct __sk_buff *skb, const struct packet *pkt)
{
	struct endpoint *dest = endpoint_lookup(&pkt->daddr);

	if (dest)
		count_for(skb, &dest->slots);
	return -REASON_NEXT_UNTRACKED;
}

/**
 * forward() - steps 4 to 6: carry the packet, or leave it to the stack
 * @skb: the packet
 * @pkt: its headers
 * @v4: IPv4, else IPv6; a constant
 * @source: the endpoint it comes from; NULL: it comes from an uplink
 *
 * The entry is held to the end: what is read of the node is reached through it.
 *
 * Return: negative reason
 */
static __always_inline int forward(struct __sk_buff *skb, const struct packet *pkt, bool v4,
				   const struct endpoint *source)
{
	struct bpf_ct_opts opts = {};
	struct nf_conn *ct;
	int ret;

	if (!source && !forward_asks(skb, pkt))
		return -REASON_NEXT_NO_ENDPOINT;
	if (!have_conntrack)
		return source ? forward_direct(skb, pkt, source) : -REASON_NEXT_UNTRACKED;
	ct = conntrack_lookup(skb, pkt, v4, false, &opts);
	if (ct) {
		ret = forward_flow(skb, pkt, ct, opts.dir, v4, source);
		bpf_ct_release(ct);
		return ret;
	}
	if (opts.error != -ENOENT)
		return -REASON_NEXT_CONNTRACK;
	return source ? forward_direct(skb, pkt, source) : forward_arrives(skb, pkt);
}

#endif
