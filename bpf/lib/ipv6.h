/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_IPV6_H
#define ZIPLINE_IPV6_H

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

/* Step 4: the packet's own tuple. */
static __always_inline int ipv6_conntrack(struct __sk_buff *skb, const struct ipv6hdr *ip,
					  __u32 l4_offset, __u8 protocol)
{
	struct ports buf, *ports = packet_header(skb, l4_offset, sizeof(buf), &buf);
	struct bpf_sock_tuple tuple = {};

	if (!ports)
		return -REASON_NEXT_MALFORMED;
	__builtin_memcpy(tuple.ipv6.saddr, ip->saddr.w, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, ip->daddr.w, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = ports->source;
	tuple.ipv6.dport = ports->dest;
	return conntrack_lookup(skb, &tuple, sizeof(tuple.ipv6), protocol);
}

/* Steps 3 to 5 for an IPv6 packet whose source is leased to the device. */
static __always_inline int ipv6_shorten(struct __sk_buff *skb, const struct ipv6hdr *ip,
					const struct endpoint *source)
{
	struct address addr = address_v6(&ip->daddr);
	__u32 l4_offset = ETH_HLEN + sizeof(*ip);
	struct endpoint *dest;
	__u8 protocol;
	int ret;

	ret = frame_check(skb);
	if (ret)
		return ret;
	if (address_multicast(&addr))
		return -REASON_NEXT_GROUP;
	ret = ipv6_l4(skb, ip, &protocol);
	if (ret < 0)
		return ret;
	if (ret)
		l4_offset += sizeof(struct jumbo);
	if (!ip->hop_limit)
		return -REASON_NEXT_TTL;
	if (address_v4_mapped(&addr))
		return -REASON_NEXT_NO_ENDPOINT;
	ret = local_destination(skb, source, &addr, &dest);
	if (ret)
		return ret;
	ret = local_fits(skb, sizeof(*ip), l4_offset, protocol, dest->mtu) ?:
	      ipv6_conntrack(skb, ip, l4_offset, protocol);
	if (ret)
		return ret;
	return local_deliver(skb, dest);
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

	if (!eth || !ip || (ip->flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000))
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
	return ipv6_shorten(skb, ip, source);
}

#endif
