/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_PACKET_H
#define ZIPLINE_PACKET_H

/* What is read of a packet, the same for all that decide about it: headers, addresses, ports, size. */

/**
 * packet_header() - a header of the packet, for reading
 * @skb: the packet
 * @offset: from the Ethernet header; a constant
 * @len: a constant
 * @buf: where to copy it when it is not in the linear part
 *
 * Nothing is pulled: a partial pull of a GSO packet made of a fragment list
 * crashes kernels before 6.16 in skb_segment, and reading does not need it.
 *
 * Return: the header, in the packet or in @buf; NULL when the packet ends first
 */
static __always_inline void *packet_header(struct __sk_buff *skb, __u32 offset, __u32 len, void *buf)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;

	if (data + offset + len <= data_end)
		return data + offset;
	if (bpf_skb_load_bytes(skb, offset, buf, len))
		return NULL;
	return buf;
}

/**
 * struct packet - what is known of a TCP or UDP packet without options
 * @saddr: source address
 * @daddr: destination address
 * @ports: source and destination port
 * @l4_offset: of the TCP or UDP header
 * @l3_len: length of the IP header, without what segmentation removes
 * @traffic: IPv4: the TOS; IPv6: the first word of the header
 * @l4_len: length of the TCP or UDP header
 * @protocol: IPPROTO_TCP or IPPROTO_UDP
 * @ttl: TTL or hop limit
 * @tcp_flags: of TCP; 0 of UDP
 *
 * Whether it is IPv4 is handed on beside it, as a constant: what is written to
 * the stack the compiler may read back, and the verifier then has to believe
 * that an IPv4 packet is handled as IPv6.
 */
struct packet {
	struct address saddr;
	struct address daddr;
	struct ports ports;
	__u32 l4_offset;
	__u32 l3_len;
	__be32 traffic;
	__u8 l4_len;
	__u8 protocol;
	__u8 ttl;
	__u8 tcp_flags;
};

static __always_inline struct address address_v4(__be32 ip)
{
	struct address addr = { .w = { 0, 0, bpf_htonl(0xffff), ip } };

	return addr;
}

static __always_inline struct address address_v6(const struct in6_addr *ip)
{
	struct address addr = { .w = { ip->w[0], ip->w[1], ip->w[2], ip->w[3] } };

	return addr;
}

static __always_inline bool in6_equal(const struct in6_addr *a, const struct in6_addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

static __always_inline bool address_equal(const struct address *a, const struct address *b, bool v4)
{
	if (v4)
		return a->w[3] == b->w[3];
	return !((a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) | (a->w[2] ^ b->w[2]) | (a->w[3] ^ b->w[3]));
}

static __always_inline bool address_unspecified(const struct address *a)
{
	return !(a->w[0] | a->w[1] | a->w[2] | a->w[3]);
}

/* An IPv6 packet must not pass for the IPv4 endpoint whose key looks the same. */
static __always_inline bool address_v4_mapped(const struct address *a)
{
	return !a->w[0] && !a->w[1] && a->w[2] == bpf_htonl(0xffff);
}

static __always_inline bool address_link_local(const struct address *a)
{
	return (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline bool address_multicast(const struct address *a)
{
	return (a->w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

static __always_inline bool ipv4_group(__be32 ip)
{
	return (ip & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || ip == 0xffffffff;
}

static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	return !(((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2])) |
		 ((a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5])));
}

static __always_inline void mac_copy(__u8 *to, const __u8 *from)
{
	__builtin_memcpy(to, from, ETH_ALEN);
}

/**
 * frame_check() - may a frame like this be carried past the stack at all?
 * @skb: the packet
 *
 * PACKET_HOST says that the frame is addressed to the host veth's own MAC, as
 * it is at this moment.
 */
static __always_inline int frame_check(struct __sk_buff *skb)
{
	if (skb->vlan_present)
		return -REASON_NEXT_VLAN;
	if (skb->pkt_type == PACKET_OTHERHOST)
		return -REASON_NEXT_OTHERHOST;
	if (skb->pkt_type != PACKET_HOST)
		return -REASON_NEXT_GROUP;
	return 0;
}

/**
 * packet_l4() - read the TCP or UDP header
 * @skb: the packet
 * @pkt: its protocol is set
 * @offset: of the header; a constant
 *
 * Return: 0, or a negative reason
 */
static __always_inline int packet_l4(struct __sk_buff *skb, struct packet *pkt, __u32 offset)
{
	struct ports ports_buf, *ports = packet_header(skb, offset, sizeof(ports_buf), &ports_buf);
	struct tcp_middle tcp_buf, *tcp;

	if (!ports)
		return -REASON_NEXT_MALFORMED;
	pkt->ports = *ports;
	pkt->l4_offset = offset;
	pkt->l4_len = UDP_HLEN;
	pkt->tcp_flags = 0;
	if (pkt->protocol == IPPROTO_UDP)
		return 0;
	tcp = packet_header(skb, offset + TCP_MIDDLE_OFFSET, sizeof(tcp_buf), &tcp_buf);
	if (!tcp)
		return -REASON_NEXT_MALFORMED;
	pkt->l4_len = (tcp->doff >> 4) * 4;
	pkt->tcp_flags = tcp->flags;
	return pkt->l4_len < TCP_HLEN_MIN ? -REASON_NEXT_MALFORMED : 0;
}

/* A SYN-ACK. One with URG is invalid to conntrack (nf_conntrack_proto_tcp.c, tcp_valid_flags). */
static __always_inline bool tcp_answers(__u8 flags)
{
	return (flags & (TCP_TURN | TCP_ACK | TCP_URG)) == (TCP_SYN | TCP_ACK);
}

/**
 * packet_size() - how large its IP packets are on the wire
 * @skb: the packet
 * @pkt: its headers
 *
 * A GSO packet is as large as its segments will be; its own length says
 * nothing, and the length in its IP header may be 0 (BIG TCP).
 */
static __always_inline __u32 packet_size(const struct __sk_buff *skb, const struct packet *pkt)
{
	return skb->gso_size ? pkt->l3_len + pkt->l4_len + skb->gso_size : skb->len - ETH_HLEN;
}

#endif
