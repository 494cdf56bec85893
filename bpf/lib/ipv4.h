/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_IPV4_H
#define ZIPLINE_IPV4_H

/* What is IPv4's own in the programs: its header, and which packets are plain enough to be carried. */

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

/* Steps 3 to 6 for a packet that may come from where it says. */
static __always_inline int ipv4_forward(struct __sk_buff *skb, const struct iphdr *ip,
					const struct endpoint *source)
{
	struct packet pkt = {
		.saddr = address_v4(ip->saddr),
		.daddr = address_v4(ip->daddr),
		.l3_len = sizeof(*ip),
		.traffic = ip->tos,
		.protocol = ip->protocol,
		.ttl = ip->ttl,
	};
	int ret;

	ret = frame_check(skb) ?: ipv4_plain(ip) ?: packet_l4(skb, &pkt, ETH_HLEN + sizeof(*ip));
	return ret ?: forward(skb, &pkt, true, source);
}

/* An IPv4 packet from a container. */
static __always_inline int ipv4_from_endpoint(struct __sk_buff *skb)
{
	struct ethhdr eth_buf, *eth = packet_header(skb, 0, sizeof(eth_buf), &eth_buf);
	struct iphdr ip_buf, *ip = packet_header(skb, ETH_HLEN, sizeof(ip_buf), &ip_buf);
	struct endpoint *source;
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
	return ipv4_forward(skb, ip, source);
}

/* An IPv4 packet from outside. */
static __always_inline int ipv4_from_uplink(struct __sk_buff *skb)
{
	struct iphdr ip_buf, *ip = packet_header(skb, ETH_HLEN, sizeof(ip_buf), &ip_buf);

	if (!ip || ip->version != 4)
		return -REASON_NEXT_MALFORMED;
	return ipv4_forward(skb, ip, NULL);
}

/* An IPv4 packet that came through the stack. */
static __always_inline int ipv4_to_device(struct __sk_buff *skb, __u32 directions)
{
	struct iphdr ip_buf, *ip = packet_header(skb, ETH_HLEN, sizeof(ip_buf), &ip_buf);
	struct packet pkt = {};
	int ret;

	if (!ip || ip->version != 4)
		return -REASON_NEXT_MALFORMED;
	pkt.saddr = address_v4(ip->saddr);
	pkt.daddr = address_v4(ip->daddr);
	pkt.protocol = ip->protocol;
	ret = ipv4_plain(ip) ?: packet_l4(skb, &pkt, ETH_HLEN + sizeof(*ip));
	return ret ?: conntrack_observe(skb, &pkt, true, directions);
}

#endif
