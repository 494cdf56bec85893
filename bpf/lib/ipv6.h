/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_IPV6_H
#define ZIPLINE_IPV6_H

/* What is IPv6's own in the programs: its headers, and which packets are plain enough to be carried. */

#define IPV6_TLV_JUMBO 194

/**
 * struct jumbo - the hop-by-hop header with which older kernels carry BIG TCP
 *
 * Local to the machine: segmentation takes it out again.
 */
struct jumbo {
	__u8 nexthdr;
	__u8 hdrlen;
	__u8 tlv_type;
	__u8 tlv_len;
	__be32 len;
};

/**
 * ipv6_l4() - where TCP or UDP begins
 * @skb: the packet
 * @ip: its header
 * @protocol: set to IPPROTO_TCP or IPPROTO_UDP
 *
 * Return: length of what lies between the IPv6 header and it, or a negative reason
 */
static __always_inline int ipv6_l4(struct __sk_buff *skb, const struct ipv6hdr *ip, __u8 *protocol)
{
	struct jumbo buf, *jumbo;

	*protocol = ip->nexthdr;
	switch (ip->nexthdr) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		return 0;
	case IPPROTO_FRAGMENT:
		return -REASON_NEXT_FRAGMENT;
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
		return -REASON_NEXT_OPTIONS;
	case IPPROTO_HOPOPTS:
		break;
	default:
		return -REASON_NEXT_PROTOCOL;
	}
	if (!skb->gso_size || ip->payload_len)
		return -REASON_NEXT_OPTIONS;
	jumbo = packet_header(skb, ETH_HLEN + sizeof(*ip), sizeof(buf), &buf);
	if (!jumbo || jumbo->nexthdr != IPPROTO_TCP || jumbo->hdrlen ||
	    jumbo->tlv_type != IPV6_TLV_JUMBO || jumbo->tlv_len != sizeof(jumbo->len))
		return -REASON_NEXT_OPTIONS;
	*protocol = IPPROTO_TCP;
	return sizeof(*jumbo);
}

/**
 * ipv6_packet() - read the headers of a packet
 * @skb: the packet
 * @ip: its IPv6 header
 * @pkt: set
 *
 * Return: 0 if this is a whole TCP or UDP packet to one receiver, with no
 * options, else a negative reason
 */
static __always_inline int ipv6_packet(struct __sk_buff *skb, const struct ipv6hdr *ip, struct packet *pkt)
{
	int ret;

	pkt->saddr = address_v6(&ip->saddr);
	pkt->daddr = address_v6(&ip->daddr);
	pkt->l3_len = sizeof(*ip);
	pkt->traffic = ip->flow;
	pkt->ttl = ip->hop_limit;
	if (address_multicast(&pkt->daddr))
		return -REASON_NEXT_GROUP;
	ret = ipv6_l4(skb, ip, &pkt->protocol);
	if (ret < 0)
		return ret;
	if (!ip->hop_limit)
		return -REASON_NEXT_TTL;
	if (address_v4_mapped(&pkt->saddr) || address_v4_mapped(&pkt->daddr))
		return -REASON_NEXT_NO_ENDPOINT;
	if (ret)
		return packet_l4(skb, pkt, ETH_HLEN + sizeof(*ip) + sizeof(struct jumbo));
	return packet_l4(skb, pkt, ETH_HLEN + sizeof(*ip));
}

/* Steps 3 to 6 for a packet that may come from where it says. */
static __always_inline int ipv6_forward(struct __sk_buff *skb, const struct ipv6hdr *ip,
					const struct endpoint *source)
{
	struct packet pkt = {};
	int ret;

	ret = frame_check(skb) ?: ipv6_packet(skb, ip, &pkt);
	return ret ?: forward(skb, &pkt, false, source);
}

static __always_inline bool ipv6_version(const struct ipv6hdr *ip)
{
	return (ip->flow & bpf_htonl(0xf0000000)) == bpf_htonl(0x60000000);
}

/* An IPv6 packet from a container. */
static __always_inline int ipv6_from_endpoint(struct __sk_buff *skb)
{
	struct ethhdr eth_buf, *eth = packet_header(skb, 0, sizeof(eth_buf), &eth_buf);
	struct ipv6hdr ip_buf, *ip = packet_header(skb, ETH_HLEN, sizeof(ip_buf), &ip_buf);
	struct endpoint *source = NULL;
	struct address addr;
	bool stack_source;
	int ret;

	if (!eth || !ip || !ipv6_version(ip))
		return -REASON_NEXT_MALFORMED;
	addr = address_v6(&ip->saddr);
	stack_source = address_unspecified(&addr) || address_link_local(&addr);
	if (stack_source)
		ret = source_check_mac(skb, eth);
	else if (address_v4_mapped(&addr))
		ret = source_unleased(skb, eth, -REASON_DROP_SOURCE);
	else
		ret = source_check(skb, eth, &addr, -REASON_DROP_SOURCE, &source);
	if (ret)
		return ret;

	ret = nd_from_endpoint(skb, eth, ip);
	if (ret)
		return ret;
	if (stack_source)
		return -REASON_NEXT_STACK_SOURCE;
	if (!source)
		return -REASON_NEXT_UNCHECKED;
	return ipv6_forward(skb, ip, source);
}

/* An IPv6 packet from outside. */
static __always_inline int ipv6_from_uplink(struct __sk_buff *skb)
{
	struct ipv6hdr ip_buf, *ip = packet_header(skb, ETH_HLEN, sizeof(ip_buf), &ip_buf);

	if (!ip || !ipv6_version(ip))
		return -REASON_NEXT_MALFORMED;
	return ipv6_forward(skb, ip, NULL);
}

/* An IPv6 packet that came through the stack. */
static __always_inline int ipv6_to_device(struct __sk_buff *skb, __u32 directions)
{
	struct ipv6hdr ip_buf, *ip = packet_header(skb, ETH_HLEN, sizeof(ip_buf), &ip_buf);
	struct packet pkt = {};

	if (!ip || !ipv6_version(ip))
		return -REASON_NEXT_MALFORMED;
	return ipv6_packet(skb, ip, &pkt) ?: conntrack_observe(skb, &pkt, false, directions);
}

#endif
