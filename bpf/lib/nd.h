/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_ND_H
#define ZIPLINE_ND_H

/* For IPv6 what arp.h is for IPv4: a neighbour on this node, whom no multicast reaches, is answered for here. */

#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_OPT_SOURCE_LL 1
#define ND_OPT_TARGET_LL 2
#define ND_FLAG_SOLICITED 0x40000000
#define ND_FLAG_OVERRIDE 0x20000000
#define ND_HOP_LIMIT 255

/* Room for a link-layer address, a nonce and two more options of 8 bytes: more is the stack's. */
#define ND_OPTS 4

struct nd_option {
	__u8 type;
	__u8 len; /* in units of 8 bytes */
	__u8 mac[ETH_ALEN];
};

/* Solicitation and advertisement differ in nothing but type and flags. */
struct nd_message {
	__u8 type;
	__u8 code;
	__sum16 check;
	__be32 flags;
	struct in6_addr target;
};

struct nd_solicit {
	struct nd_message nd;
	struct nd_option opts[ND_OPTS];
};

struct nd_advert {
	__u16 align; /* puts the IPv6 header on a word boundary; not sent */
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct nd_message nd;
	struct nd_option target_ll;
};

#define ND_ADVERT_LEN (sizeof(struct nd_advert) - sizeof(__u16))

/* Internet checksum of an ICMPv6 message of a multiple of 4 bytes. */
static __always_inline __sum16 nd_checksum(const struct in6_addr *saddr, const struct in6_addr *daddr,
					   void *msg, __u32 size, __u32 len)
{
	__be32 pseudo[2] = { bpf_htonl(len), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum;

	sum = bpf_csum_diff(NULL, 0, (__be32 *)saddr, sizeof(*saddr), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)daddr, sizeof(*daddr), sum);
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), sum);
	sum = bpf_csum_diff(NULL, 0, msg, size, sum);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* ff02::1:ffXX:XXXX of the address */
static __always_inline bool nd_solicited_node(const struct in6_addr *group, const struct in6_addr *addr)
{
	return group->w[0] == bpf_htonl(0xff020000) && !group->w[1] && group->w[2] == bpf_htonl(1) &&
	       group->w[3] == (addr->w[3] | bpf_htonl(0xff000000));
}

/**
 * nd_options_valid() - RFC 4861, 7.1.1: no option of length 0, none cut off
 * @msg: the solicitation
 * @count: units of 8 bytes that the options take
 * @probe: whether the source is unspecified, which forbids a link-layer address
 */
static __always_inline bool nd_options_valid(const struct nd_solicit *msg, __u32 count, bool probe)
{
	bool valid = true;
	__u32 next = 0;

#pragma unroll
	for (__u32 i = 0; i < ND_OPTS; i++) {
		if (i != next || i >= count)
			continue; /* within the option before, or at the end */
		valid &= msg->opts[i].len && !(probe && msg->opts[i].type == ND_OPT_SOURCE_LL);
		next += msg->opts[i].len;
	}
	return valid && next == count;
}

/**
 * nd_load() - the solicitation, if it is one and valid (RFC 4861, 7.1.1)
 * @skb: the packet
 * @ip: its IPv6 header
 * @probe: whether the source is unspecified
 * @msg: where to put it
 */
static __always_inline bool nd_load(struct __sk_buff *skb, const struct ipv6hdr *ip, bool probe,
				    struct nd_solicit *msg)
{
	__u32 len = bpf_ntohs(ip->payload_len);

	/* Older verifiers take a swapped value for any 64 bits, and clang drops a mask that it can. */
	barrier_var(len);
	len &= 0xffff;
	if (len < sizeof(msg->nd) || len > sizeof(*msg) || len & 7)
		return false;
	__builtin_memset(msg, 0, sizeof(*msg));
	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(*ip), msg, len))
		return false;
	if (ip->hop_limit != ND_HOP_LIMIT || msg->nd.code ||
	    nd_checksum(&ip->saddr, &ip->daddr, msg, sizeof(*msg), len))
		return false;
	if (!nd_options_valid(msg, (len - sizeof(msg->nd)) / 8, probe))
		return false;
	if (nd_solicited_node(&ip->daddr, &msg->nd.target))
		return true;
	return !probe && in6_equal(&ip->daddr, &msg->nd.target);
}

/**
 * nd_reply() - send the advertisement back
 * @skb: the solicitation, overwritten
 * @eth: its Ethernet header
 * @ip: its IPv6 header
 * @target: whose MAC is wanted
 * @probe: whether the source is unspecified: then all nodes are told
 * @mac: the MAC of the host veth, which answers for everyone
 *
 * The override flag is set because an answer from an earlier holder of the
 * address may still be cached. The router flag is not: the gateway is never
 * answered for.
 */
static __always_inline int nd_reply(struct __sk_buff *skb, const struct ethhdr *eth,
				    const struct ipv6hdr *ip, const struct in6_addr *target,
				    bool probe, const __u8 *mac)
{
	struct nd_advert na = {
		.eth.h_proto = bpf_htons(ETH_P_IPV6),
		.ip.flow = bpf_htonl(0x60000000),
		.ip.payload_len = bpf_htons(sizeof(na.nd) + sizeof(na.target_ll)),
		.ip.nexthdr = IPPROTO_ICMPV6,
		.ip.hop_limit = ND_HOP_LIMIT,
		.nd.type = ND_ADVERTISEMENT,
		.nd.flags = bpf_htonl(ND_FLAG_OVERRIDE),
		.target_ll.type = ND_OPT_TARGET_LL,
		.target_ll.len = 1,
	};

	if (probe) {
		na.eth.h_dest[0] = 0x33;
		na.eth.h_dest[1] = 0x33;
		na.eth.h_dest[5] = 1;
		na.ip.daddr.w[0] = bpf_htonl(0xff020000);
		na.ip.daddr.w[3] = bpf_htonl(1);
	} else {
		mac_copy(na.eth.h_dest, eth->h_source);
		na.ip.daddr = ip->saddr;
		na.nd.flags |= bpf_htonl(ND_FLAG_SOLICITED);
	}
	mac_copy(na.eth.h_source, mac);
	na.ip.saddr = *target;
	na.nd.target = *target;
	mac_copy(na.target_ll.mac, mac);
	na.nd.check = nd_checksum(&na.ip.saddr, &na.ip.daddr, &na.nd,
				  sizeof(na.nd) + sizeof(na.target_ll),
				  sizeof(na.nd) + sizeof(na.target_ll));
	if (bpf_skb_change_tail(skb, ND_ADVERT_LEN, 0) ||
	    bpf_skb_store_bytes(skb, 0, &na.eth, ND_ADVERT_LEN, 0))
		return -REASON_NEXT_ND;
	bpf_redirect(skb->ifindex, 0);
	return -REASON_ND_REPLY;
}

/**
 * nd_from_endpoint() - answer a neighbour solicitation
 * @skb: an IPv6 packet whose source has been checked
 * @eth: its Ethernet header
 * @ip: its IPv6 header
 *
 * Answered: for an endpoint of one of the device's networks that lives behind
 * another device. So a container that probes its own address (duplicate address
 * detection) gets no answer, and gets one exactly if somebody else has it.
 *
 * Return: 0 if this is no solicitation, else a negative reason
 */
static __always_inline int nd_from_endpoint(struct __sk_buff *skb, const struct ethhdr *eth,
					    const struct ipv6hdr *ip)
{
	struct nd_solicit msg;
	struct address addr;
	struct device *dev;
	__u8 buf, *type;
	bool probe;

	if (ip->nexthdr != IPPROTO_ICMPV6)
		return 0;
	type = packet_header(skb, ETH_HLEN + sizeof(*ip), sizeof(buf), &buf);
	if (!type || *type != ND_SOLICITATION)
		return 0;
	if (skb->vlan_present)
		return -REASON_NEXT_VLAN;
	if (skb->pkt_type == PACKET_OTHERHOST || skb->gso_size)
		return -REASON_NEXT_ND;
	addr = address_v6(&ip->saddr);
	probe = address_unspecified(&addr);
	if (!nd_load(skb, ip, probe, &msg))
		return -REASON_NEXT_ND;
	addr = address_v6(&msg.nd.target);
	if (address_v4_mapped(&addr))
		return -REASON_NEXT_ND;
	dev = device_lookup(skb->ifindex);
	if (!dev || !device_neighbour(dev, skb->ifindex, &addr))
		return -REASON_NEXT_ND;
	return nd_reply(skb, eth, ip, &msg.nd.target, probe, dev->host_mac);
}

#endif
