/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_ROUTE_H
#define ZIPLINE_ROUTE_H

/* What the kernel says of a packet's way: by which device it leaves, and to which MAC. */

/**
 * struct way - the kernel's answer
 * @ifindex: the device that the packet leaves by
 * @mtu: of the route
 * @dmac: MAC of the next hop
 * @smac: MAC of the device
 * @pad: 0
 */
struct way {
	__u32 ifindex;
	__u32 mtu;
	__u8 dmac[ETH_ALEN];
	__u8 smac[ETH_ALEN];
	__u32 pad;
} ANSWER_ALIGNED;
_Static_assert(sizeof(struct way) <= ANSWER_WORDS * sizeof(__u64), "struct answer has room for it");

/**
 * route_ask() - which way does the kernel send a packet?
 * @skb: where the question comes up
 * @question: which
 * @ifindex: where the packet comes in
 * @size: of its IP packets
 * @v4: IPv4, else IPv6; a constant
 * @way: set to the answer
 *
 * Return: of bpf_fib_lookup
 */
static __always_inline int route_ask(struct __sk_buff *skb, const struct question *question, __u32 ifindex,
				     __u32 size, bool v4, struct way *way)
{
	struct bpf_fib_lookup fib = {};
	int ret;

	fib.l4_protocol = question->protocol;
	fib.tot_len = size > 0xffff ? 0xffff : size;
	fib.ifindex = ifindex;
	if (v4) {
		fib.family = AF_INET;
		fib.tos = question->traffic;
		fib.src[0] = question->saddr.w[3];
		fib.dst[0] = question->daddr.w[3];
	} else {
		fib.family = AF_INET6;
		fib.flowinfo = question->traffic & bpf_htonl(IPV6_FLOWINFO_MASK);
		__builtin_memcpy(fib.src, question->saddr.w, sizeof(fib.src));
		__builtin_memcpy(fib.dst, question->daddr.w, sizeof(fib.dst));
	}
	ret = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	way->ifindex = fib.ifindex;
	way->mtu = fib.tot_len;
	mac_copy(way->dmac, fib.dmac);
	mac_copy(way->smac, fib.smac);
	way->pad = 0;
	return ret;
}

#endif
