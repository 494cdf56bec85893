/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_ROUTE_H
#define ZIPLINE_ROUTE_H

/*
 * To ask the kernel for a route and its neighbour costs as much as all else that
 * is done to a packet. So an answer holds for the tick in which it was given, on
 * the CPU that asked: packets of a flow that is worth carrying come closer
 * together, and a change is followed within a tick (1 to 10 ms).
 */

#define ROUTES 256
#define ROUTES_SHIFT 24 /* of a hash of 32 bits */

/**
 * struct route_key - what the way of a packet depends on
 * @saddr: source address, before it is translated
 * @daddr: destination address, after it was
 * @traffic: IPv4: the TOS; IPv6: the first word of the header
 * @ifindex: where it comes in
 * @protocol: IPPROTO_TCP or IPPROTO_UDP: next hops of one IPv6 route are chosen by it
 * @pad: 0
 */
struct route_key {
	struct address saddr;
	struct address daddr;
	__be32 traffic;
	__u32 ifindex;
	__u32 protocol;
	__u32 pad;
};

/**
 * struct way - the kernel's answer
 * @ifindex: the device that the packet leaves by
 * @mtu: of the route
 * @dmac: MAC of the next hop
 * @smac: MAC of the device
 */
struct way {
	__u32 ifindex;
	__u32 mtu;
	__u8 dmac[ETH_ALEN];
	__u8 smac[ETH_ALEN];
};

/**
 * struct route - an answer that holds for a tick
 * @tick: in which it was given, in jiffies
 * @key: to which question
 * @way: the answer
 * @sequence: odd while somebody writes
 */
struct route {
	__u64 tick;
	struct route_key key;
	struct way way;
	__u32 sequence;
};

/* Not pinned: each load has its own. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ROUTES);
	__type(key, __u32);
	__type(value, struct route);
} routes SEC(".maps");

/* The place of an answer. Questions that meet there cost look-ups, nothing else. */
static __always_inline struct route *route_place(const struct route_key *key)
{
	__u32 hash = key->saddr.w[3] ^ key->daddr.w[3] ^ key->daddr.w[2] ^ key->daddr.w[1] ^ key->ifindex;

	hash = hash * 0x9e3779b1 >> ROUTES_SHIFT;
	return bpf_map_lookup_elem(&routes, &hash);
}

static __always_inline bool route_key_equal(const struct route_key *a, const struct route_key *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]) | (x[5] ^ y[5]));
}

/**
 * route_known() - the answer that was given in this tick
 * @key: the question
 * @way: set to the answer
 *
 * A real-time kernel may run another packet on this CPU in between, which keeps
 * an answer at the same place: the sequence number tells.
 */
static __always_inline bool route_known(const struct route_key *key, struct way *way)
{
	struct route *route = route_place(key);
	__u32 sequence;

	if (!route)
		return false;
	sequence = route->sequence;
	barrier();
	if (route->tick != bpf_jiffies64() || !route_key_equal(&route->key, key))
		return false;
	*way = route->way;
	barrier();
	return !(sequence & 1) && route->sequence == sequence;
}

/* Keep an answer, given while the tick was @tick. */
static __always_inline void route_keep(const struct route_key *key, const struct way *way, __u64 tick)
{
	struct route *route = route_place(key);
	__u32 sequence;

	if (!route)
		return;
	sequence = route->sequence;
	if (sequence & 1)
		return;
	route->sequence = sequence + 1;
	barrier();
	route->tick = tick;
	route->key = *key;
	route->way = *way;
	barrier();
	route->sequence = sequence + 2;
}

/**
 * route_ask() - which way does the kernel send a packet?
 * @skb: where the question comes up
 * @key: the question
 * @ifindex: where the packet comes in
 * @size: of its IP packets
 * @v4: IPv4, else IPv6; a constant
 * @way: set to the answer
 *
 * Return: of bpf_fib_lookup
 */
static __always_inline int route_ask(struct __sk_buff *skb, const struct route_key *key, __u32 ifindex,
				     __u32 size, bool v4, struct way *way)
{
	struct bpf_fib_lookup fib = {};
	int ret;

	fib.l4_protocol = key->protocol;
	fib.tot_len = size > 0xffff ? 0xffff : size;
	fib.ifindex = ifindex;
	if (v4) {
		fib.family = AF_INET;
		fib.tos = key->traffic;
		fib.src[0] = key->saddr.w[3];
		fib.dst[0] = key->daddr.w[3];
	} else {
		fib.family = AF_INET6;
		fib.flowinfo = key->traffic & bpf_htonl(IPV6_FLOWINFO_MASK);
		__builtin_memcpy(fib.src, key->saddr.w, sizeof(fib.src));
		__builtin_memcpy(fib.dst, key->daddr.w, sizeof(fib.dst));
	}
	ret = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	way->ifindex = fib.ifindex;
	way->mtu = fib.tot_len;
	mac_copy(way->dmac, fib.dmac);
	mac_copy(way->smac, fib.smac);
	return ret;
}

#endif
