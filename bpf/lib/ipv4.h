/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_IPV4_H
#define ZIPLINE_IPV4_H

/**
 * ipv4_plain() - is this a whole TCP or UDP packet to one receiver, with no options?
 * @ip: its header
 *
 * TTL 1 is plain: between neighbours no hop is taken, as on a bridge, and
 * protocols that insist on neighbours use exactly that value.
 *
 * Return: 0 if so, else a negative reason
 */
static __always_inline int ipv4_plain(const struct iphdr *ip)
{
	if (ipv4_group(ip->daddr))
		return -REASON_NEXT_GROUP;
	if (ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
		return -REASON_NEXT_FRAGMENT;
	if (ip->ihl != sizeof(*ip) / 4)
		return -REASON_NEXT_OPTIONS;
	if (!ip->ttl)
		return -REASON_NEXT_TTL;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return -REASON_NEXT_PROTOCOL;
	return 0;
}

/* Step 4: the packet's own tuple. */
static __always_inline int ipv4_conntrack(struct __sk_buff *skb, const struct iphdr *ip)
{
	struct ports buf, *ports = packet_header(skb, ETH_HLEN + sizeof(*ip), sizeof(buf), &buf);
	struct bpf_sock_tuple tuple = {};

	if (!ports)
		return -REASON_NEXT_MALFORMED;
	tuple.ipv4.saddr = ip->saddr;
	tuple.ipv4.daddr = ip->daddr;
	tuple.ipv4.sport = ports->source;
	tuple.ipv4.dport = ports->dest;
	return conntrack_lookup(skb, &tuple, sizeof(tuple.ipv4), ip->protocol);
}

/* An IPv4 packet from a container. */
static __always_inline int ipv4_from_endpoint(struct __sk_buff *skb)
{
	struct ethhdr eth_buf, *eth = packet_header(skb, 0, sizeof(eth_buf), &eth_buf);
	struct iphdr ip_buf, *ip = packet_header(skb, ETH_HLEN, sizeof(ip_buf), &ip_buf);
	struct endpoint *source, *dest;
	struct address addr;
	int ret;

	if (!eth || !ip || ip->version != 4)
		return -REASON_NEXT_MALFORMED;
	if (!ip->saddr)
		return source_check_mac(skb, eth) ?: -REASON_NEXT_STACK_SOURCE;
	addr = address_v4(ip->saddr);
	ret = source_check(skb, eth, &addr, -REASON_DROP_SOURCE, &source);
	if (ret)
		return ret;
	if (!source)
		return -REASON_NEXT_UNCHECKED;

	ret = frame_check(skb) ?: ipv4_plain(ip);
	if (ret)
		return ret;
	addr = address_v4(ip->daddr);
	ret = local_destination(skb, source, &addr, &dest);
	if (ret)
		return ret;
	ret = local_fits(skb, sizeof(*ip), ETH_HLEN + sizeof(*ip), ip->protocol, dest->mtu) ?:
	      ipv4_conntrack(skb, ip);
	if (ret)
		return ret;
	return local_deliver(skb, dest);
}

#endif
