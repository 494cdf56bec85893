/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_FORWARD_H
#define ZIPLINE_FORWARD_H

/* Steps 4 to 6 of a packet's way (docs/architecture.md): what conntrack knows of it decides whether it is carried. */

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
	struct question question;
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
	question = (struct question){
		.saddr = pkt->saddr,
		.daddr = flow->daddr,
		.traffic = pkt->traffic,
		.ifindex = skb->ifindex,
		.protocol = pkt->protocol,
		.about = ABOUT_WAY,
	};
	/* What has its source translated leaves the node, but for rare ones. */
	if (!address_equal(&pkt->saddr, &flow->saddr, v4) && answer_known(&question, &way, sizeof(way)))
		return carry_uplink(skb, pkt, flow, v4, &way);
	dest = endpoint_lookup(&flow->daddr);
	if (dest)
		return carry_local(skb, pkt, flow, v4, dest, false);
	ret = uplink_way(skb, pkt, flow, v4, &question, &way);
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

/**
 * forward_ask() - what does conntrack make of a packet?
 * @skb: the packet
 * @pkt: its headers
 * @v4: IPv4, else IPv6; a constant
 * @source: the endpoint it comes from; NULL: it comes from an uplink
 * @flow: set where 0 is returned, and where the packet's flow is not established
 *
 * Return: 0 if the packet may be carried, or is unknown; else a negative reason
 */
static __always_inline int forward_ask(struct __sk_buff *skb, const struct packet *pkt, bool v4,
				       const struct endpoint *source, struct flow *flow)
{
	struct bpf_ct_opts opts = {};
	struct nf_conn *ct;
	int ret;

	ct = conntrack_lookup(skb, pkt, v4, false, &opts);
	if (!ct) {
		if (opts.error != -ENOENT)
			return -REASON_NEXT_CONNTRACK;
		*flow = (struct flow){};
		return 0;
	}
	ret = flow_read(ct, opts.dir, pkt, v4, flow);
	bpf_ct_release(ct);
	if (ret == -REASON_NEXT_CHECK_IN || (!ret && source))
		forward_note(skb, pkt, flow, v4, source);
	if (ret)
		skb->tc_index = flow->admit;
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
 * forward_turn() - a packet that opens, closes or resets a TCP connection
 * @skb: the packet
 * @pkt: its headers
 * @v4: IPv4, else IPv6; a constant
 * @source: the endpoint it comes from; NULL: it comes from an uplink
 *
 * It goes to the stack, and conntrack need not be asked for that; but between
 * neighbours whose connection conntrack does not know.
 *
 * Return: negative reason
 */
static __always_inline int forward_turn(struct __sk_buff *skb, const struct packet *pkt, bool v4,
					const struct endpoint *source)
{
	struct endpoint *dest;
	struct flow flow;
	int ret;

	turn_note(turn_ends(&pkt->saddr, &pkt->daddr, &pkt->ports));
	if (source && !local_destination(skb, source, &pkt->daddr, &dest)) {
		ret = forward_ask(skb, pkt, v4, source, &flow) ?: local_forward(skb, pkt, source);
		if (-ret < REASON_NEXT_FIRST)
			return ret;
	}
	if (source)
		turn_note(turn_end(&pkt->saddr, pkt->ports.source));
	else
		forward_arrives(skb, pkt);
	if (tcp_answers(pkt->tcp_flags))
		skb->tc_index = ADMIT | ADMIT_REPLY;
	return -REASON_NEXT_TCP_FLAGS;
}

/**
 * forward() - steps 4 to 6: carry the packet, or leave it to the stack
 * @skb: the packet
 * @pkt: its headers
 * @v4: IPv4, else IPv6; a constant
 * @source: the endpoint it comes from; NULL: it comes from an uplink
 *
 * What conntrack says is kept unless the packet goes to the stack, but for
 * datagrams without an answer.
 *
 * Return: negative reason
 */
static __always_inline int forward(struct __sk_buff *skb, const struct packet *pkt, bool v4,
				   const struct endpoint *source)
{
	struct question question;
	struct flow flow;
	__u64 tick;
	bool known;
	int ret;

	if (!source && !forward_asks(skb, pkt))
		return -REASON_NEXT_NO_ENDPOINT;
	if (!have_conntrack)
		return source ? local_forward(skb, pkt, source) : -REASON_NEXT_UNTRACKED;
	if (pkt->tcp_flags & TCP_TURN)
		return forward_turn(skb, pkt, v4, source);
	question = flow_question(skb, pkt);
	tick = bpf_jiffies64();
	known = flow_known(&question, pkt, &flow);
	if (!known) {
		ret = forward_ask(skb, pkt, v4, source, &flow);
		if (ret == -REASON_NEXT_NOT_ESTABLISHED && pkt->protocol == IPPROTO_UDP) {
			flow.admit = FLOW_UNANSWERED;
			answer_keep(&question, &flow, sizeof(flow), tick);
		}
		if (ret)
			return ret;
	}
	if (flow.admit == FLOW_UNANSWERED)
		return -REASON_NEXT_NOT_ESTABLISHED;
	if (flow.admit)
		ret = forward_tracked(skb, pkt, &flow, v4, source);
	else
		ret = source ? local_forward(skb, pkt, source) : forward_arrives(skb, pkt);
	if (-ret < REASON_NEXT_FIRST) {
		if (!known)
			answer_keep(&question, &flow, sizeof(flow), tick);
		return ret;
	}
	skb->tc_index = flow.admit;
	if (source && !flow.admit)
		turn_note(turn_end(&pkt->saddr, pkt->ports.source));
	return ret;
}

#endif
