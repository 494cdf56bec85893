/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_REWRITE_H
#define ZIPLINE_REWRITE_H

/* A carried packet leaves as the stack would have sent it: translated, one hop on, its checksums right. */

/* The one's complement sum that new words add and old words take away. */
static __always_inline __u32 checksum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

static __always_inline __u16 checksum_fold16(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u64 checksum_word(__u32 old, __u32 new)
{
	return (__u64)(__u32)~old + new;
}

static __always_inline __u32 rewrite_difference(const struct packet *pkt, const struct flow *flow, bool v4)
{
	__u64 sum = checksum_word(pkt->saddr.w[3], flow->saddr.w[3]) +
		    checksum_word(pkt->daddr.w[3], flow->daddr.w[3]);

	if (!v4) {
#pragma unroll
		for (int i = 0; i < 3; i++)
			sum += checksum_word(pkt->saddr.w[i], flow->saddr.w[i]) +
			       checksum_word(pkt->daddr.w[i], flow->daddr.w[i]);
	}
	return checksum_fold(sum);
}

/**
 * rewrite_l4_addresses() - mend the TCP or UDP checksum for new addresses
 * @skb: the packet
 * @v4: IPv4, else IPv6; a constant
 * @difference: of the addresses
 * @check: where the checksum is
 * @flags: of the protocol
 * @uplink: whether it comes from an uplink
 *
 * In an IPv6 packet whose sum the network card has taken (CHECKSUM_COMPLETE)
 * only a kernel with BPF_F_IPV6 mends both sums; such a packet comes from an
 * uplink, never from a container.
 *
 * Return: 0, or a negative reason with nothing changed
 */
static __always_inline int rewrite_l4_addresses(struct __sk_buff *skb, bool v4, __u32 difference,
						__u32 check, __u64 flags, bool uplink)
{
	flags |= BPF_F_PSEUDO_HDR;
	if (v4)
		return bpf_l4_csum_replace(skb, check, 0, difference, flags) ? -REASON_NEXT_CHECKSUM : 0;
	if (!bpf_l4_csum_replace(skb, check, 0, difference, flags | BPF_F_IPV6))
		return 0;
	if (!uplink && !bpf_l4_csum_replace(skb, check, 0, difference, flags))
		return 0;
	return -REASON_NEXT_CHECKSUM;
}

/* The helpers that mended the checksum have made what comes before it linear and ours alone. */
static __always_inline int rewrite_ports(struct __sk_buff *skb, const struct packet *pkt, const struct flow *flow,
					 bool v4)
{
	const __u32 offset = ETH_HLEN + (v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	struct ports *ports = (void *)(long)skb->data + offset;

	if (pkt->l4_offset != offset) /* a jumbo option is in between */
		return bpf_skb_store_bytes(skb, pkt->l4_offset, &flow->ports, sizeof(flow->ports), 0);
	if ((void *)(ports + 1) > (void *)(long)skb->data_end)
		return -1;
	*ports = flow->ports;
	return 0;
}

/* The checksum and the ports. A UDP checksum of 0 says that there is none, and stays. */
static __always_inline int rewrite_l4(struct __sk_buff *skb, const struct packet *pkt,
				      const struct flow *flow, bool v4, __u32 difference, bool uplink)
{
	bool tcp = pkt->protocol == IPPROTO_TCP;
	__u32 check = pkt->l4_offset + (tcp ? TCP_CHECK_OFFSET : UDP_CHECK_OFFSET);
	__u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0;
	__u32 old, new;
	int ret;

	ret = rewrite_l4_addresses(skb, v4, difference, check, flags, uplink);
	if (ret)
		return ret;
	__builtin_memcpy(&old, &pkt->ports, sizeof(old));
	__builtin_memcpy(&new, &flow->ports, sizeof(new));
	if (old == new)
		return 0;
	if (bpf_l4_csum_replace(skb, check, old, new, flags | sizeof(old)) || rewrite_ports(skb, pkt, flow, v4))
		return -REASON_DROP_REWRITE;
	return 0;
}

/* One hop on, with the addresses of the flow. */
static __always_inline void rewrite_ipv4(struct iphdr *ip, const struct flow *flow, __u32 difference)
{
	__u32 sum = (__u16)~ip->check;

	sum += checksum_fold16(difference);
	sum += (__u16)~bpf_htons(0x0100); /* TTL - 1 */
	ip->check = ~checksum_fold16(sum);
	ip->ttl--;
	ip->saddr = flow->saddr.w[3];
	ip->daddr = flow->daddr.w[3];
}

/*
 * The addresses and the TCP or UDP checksum cancel each other in the sum over
 * the whole packet, and IPv6 has no other that would cancel the hop limit.
 */
static __always_inline void rewrite_ipv6(struct __sk_buff *skb, struct ipv6hdr *ip, const struct flow *flow)
{
	__u16 old, new;

	__builtin_memcpy(ip->saddr.w, flow->saddr.w, sizeof(ip->saddr));
	__builtin_memcpy(ip->daddr.w, flow->daddr.w, sizeof(ip->daddr));
	__builtin_memcpy(&old, &ip->nexthdr, sizeof(old));
	ip->hop_limit--;
	__builtin_memcpy(&new, &ip->nexthdr, sizeof(new));
	bpf_csum_update(skb, (__u16)~old + new);
}

/**
 * rewrite() - make of the packet what the stack would have made of it
 * @skb: the packet
 * @pkt: its headers as they are
 * @flow: addresses and ports that it leaves with
 * @v4: IPv4, else IPv6; a constant
 * @dmac: destination MAC
 * @smac: source MAC
 * @uplink: whether it comes from an uplink
 *
 * The helpers come first, since they make the headers linear and ours alone.
 *
 * Return: 0, or a negative reason with nothing changed (but DROP_REWRITE)
 */
static __always_inline int rewrite(struct __sk_buff *skb, const struct packet *pkt, const struct flow *flow,
				   bool v4, const __u8 *dmac, const __u8 *smac, bool uplink)
{
	bool moved = !address_equal(&pkt->saddr, &flow->saddr, v4) ||
		     !address_equal(&pkt->daddr, &flow->daddr, v4) ||
		     pkt->ports.source != flow->ports.source || pkt->ports.dest != flow->ports.dest;
	__u32 difference = 0;
	struct ethhdr *eth;
	void *end;
	int ret;

	eth = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if ((void *)(eth + 1) + (v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) > end)
		return -REASON_NEXT_NONLINEAR;
	if (moved) {
		difference = rewrite_difference(pkt, flow, v4);
		ret = rewrite_l4(skb, pkt, flow, v4, difference, uplink);
		if (ret)
			return ret;
		eth = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if ((void *)(eth + 1) + (v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) > end)
			return -REASON_DROP_REWRITE;
	}
	mac_copy(eth->h_dest, dmac);
	mac_copy(eth->h_source, smac);
	if (v4)
		rewrite_ipv4((void *)(eth + 1), flow, difference);
	else
		rewrite_ipv6(skb, (void *)(eth + 1), flow);
	return 0;
}

#endif
