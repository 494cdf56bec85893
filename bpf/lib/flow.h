/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_FLOW_H
#define ZIPLINE_FLOW_H

/*
 * What the conntrack entry says of a packet: how it leaves and, by the node that
 * the entry belongs to, what only the stack can decide about it.
 */

/* What of the node keeps packets in the stack that leave it or come from outside. */
enum node {
	NODE_POLICY_ROUTES = 1, /* may send a packet another way than its routes say */
	NODE_XFRM = 2, /* has IPsec policies */
};

/*
 * In place of what to tell to_device: datagrams that nobody has answered yet are
 * the stack's. They may come fast, and never get an answer. Where they do, the
 * first answer is a turn (turn.h).
 */
#define FLOW_UNANSWERED 1

/**
 * struct flow - what conntrack does to a packet
 * @saddr: source address to leave with
 * @daddr: destination address to leave with
 * @ports: ports to leave with
 * @mark: of the entry
 * @admit: what to tell to_device when the packet goes to the stack, or
 *         FLOW_UNANSWERED; 0 where conntrack does not know the packet, and then so is all else
 * @node: enum node
 */
struct flow {
	struct address saddr;
	struct address daddr;
	struct ports ports;
	__u32 mark;
	__u32 admit;
	__u32 node;
} ANSWER_ALIGNED;
_Static_assert(sizeof(struct flow) <= ANSWER_WORDS * sizeof(__u64), "struct answer has room for it");

/**
 * flow_node() - what of the node keeps packets in the stack
 * @net: the node
 *
 * A rule may choose the route by what only the stack knows (a mark set by
 * netfilter). And where next hops are chosen by ports, the stack hashes what the
 * sending socket says where the packet has that, and bpf_fib_lookup the ports: a
 * flow would leave by two of them.
 *
 * Return: enum node
 */
static __always_inline __u32 flow_node(const struct net *net)
{
	__u32 policies = 0, node = 0;
	__u8 found = 0;

	if (kernel_has(net->ipv4.fib_has_custom_rules))
		found |= net->ipv4.fib_has_custom_rules;
	if (kernel_has(net->ipv6.fib6_has_custom_rules))
		found |= net->ipv6.fib6_has_custom_rules;
	if (kernel_has(net->ipv4.sysctl_fib_multipath_hash_policy))
		found |= net->ipv4.sysctl_fib_multipath_hash_policy;
	if (kernel_has(net->ipv6.sysctl.multipath_hash_policy))
		found |= net->ipv6.sysctl.multipath_hash_policy;
	if (kernel_has(net->xfrm))
		policies = net->xfrm.policy_count[0] | net->xfrm.policy_count[1] | net->xfrm.policy_count[2];
	if (found)
		node |= NODE_POLICY_ROUTES;
	if (policies)
		node |= NODE_XFRM;
	return node;
}

static __always_inline int flow_policy_routes(const struct flow *flow)
{
	return flow->node & NODE_POLICY_ROUTES ? -REASON_NEXT_POLICY_ROUTES : 0;
}

/* With IPsec policies on the node the stack decides what leaves and arrives in clear. */
static __always_inline int flow_xfrm(const struct flow *flow)
{
	return flow->node & NODE_XFRM ? -REASON_NEXT_XFRM : 0;
}

/* NAT makes of a packet the inverse of what the other direction looks like. */
#define FLOW_READ_TUPLE(flow, other, v4)                                        \
	do {                                                                    \
		if (v4) {                                                       \
			(flow)->saddr = address_v4((other)->dst.u3.all[0]);     \
			(flow)->daddr = address_v4((other)->src.u3.all[0]);     \
		} else {                                                        \
			(flow)->saddr.w[0] = (other)->dst.u3.all[0];            \
			(flow)->saddr.w[1] = (other)->dst.u3.all[1];            \
			(flow)->saddr.w[2] = (other)->dst.u3.all[2];            \
			(flow)->saddr.w[3] = (other)->dst.u3.all[3];            \
			(flow)->daddr.w[0] = (other)->src.u3.all[0];            \
			(flow)->daddr.w[1] = (other)->src.u3.all[1];            \
			(flow)->daddr.w[2] = (other)->src.u3.all[2];            \
			(flow)->daddr.w[3] = (other)->src.u3.all[3];            \
		}                                                               \
		(flow)->ports.source = (other)->dst.u.all;                      \
		(flow)->ports.dest = (other)->src.u.all;                        \
	} while (0)

/**
 * flow_read() - what conntrack does to this packet
 * @ct: its entry
 * @dir: the packet's direction
 * @pkt: its tuple
 * @v4: IPv4, else IPv6; a constant
 * @flow: set where 0 is returned; its addresses, ports and admit in any case
 *
 * Return: 0 if the packet may be carried past the stack, else a negative reason
 */
static __always_inline int flow_read(const struct nf_conn *ct, __u8 dir, const struct packet *pkt,
				     bool v4, struct flow *flow)
{
	__u32 admitted, own = 1 << (dir & 1);
	int ret;

	flow->admit = 0;
	flow->node = 0;
	flow->mark = 0;
	if (dir)
		FLOW_READ_TUPLE(flow, &ct->tuplehash[0].tuple, v4);
	else
		FLOW_READ_TUPLE(flow, &ct->tuplehash[1].tuple, v4);
	ret = conntrack_carried(ct, pkt);
	if (ret == -REASON_NEXT_NOT_ESTABLISHED && pkt->protocol == IPPROTO_UDP && dir)
		turn_note(turn_ends(&pkt->saddr, &pkt->daddr, &pkt->ports));
	/* What establishes a connection is its client's first check-in. */
	if (ret && !(ret == -REASON_NEXT_NOT_ESTABLISHED && !dir && pkt->protocol == IPPROTO_TCP &&
		     conntrack_answered(ct)))
		return ret;
	admitted = conntrack_admitted(ct, pkt->protocol);
	/*
	 * A check-in keeps what the other direction has. A packet that could be
	 * carried and goes to the stack all the same must not: else a direction
	 * that never is carried would renew the other one for ever.
	 */
	flow->admit = ADMIT | own | (admitted & own ? 0 : admitted);
	if (ret || !(admitted & own))
		return -REASON_NEXT_CHECK_IN;
	flow->node = flow_node(ct->ct_net.net);
	if (kernel_has(ct->mark))
		flow->mark = ct->mark;
	return 0;
}

static __always_inline struct question flow_question(const struct __sk_buff *skb, const struct packet *pkt)
{
	return (struct question){
		.saddr = pkt->saddr,
		.daddr = pkt->daddr,
		.ports = pkt->ports,
		.ifindex = skb->ifindex,
		.protocol = pkt->protocol,
		.about = ABOUT_FLOW,
	};
}

/**
 * flow_known() - what conntrack said in this tick about packets like this
 * @question: about the packet
 * @pkt: its headers
 * @flow: set to the answer
 *
 * The other direction's packets have before their translation the ends that this
 * one's have after it.
 *
 * Return: whether there is an answer that holds
 */
static __always_inline bool flow_known(const struct question *question, const struct packet *pkt, struct flow *flow)
{
	if (!answer_known(question, flow, sizeof(*flow)))
		return false;
	if (!flow->admit)
		return !turn_recent(turn_end(&pkt->daddr, pkt->ports.dest));
	return !turn_recent(turn_ends(&pkt->saddr, &pkt->daddr, &pkt->ports)) &&
	       !turn_recent(turn_ends(&flow->saddr, &flow->daddr, &flow->ports));
}

#endif
