/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_COUNT_H
#define ZIPLINE_COUNT_H

/* What became of the packets: counted by network, and by the container that sent them. */

#define NETWORK_NAME_LEN 64
#define NETWORK_SLOTS 16

/**
 * struct network_name - the key of a network
 * @text: its name, with zeros after it; a long one is cut
 */
struct network_name {
	__u8 text[NETWORK_NAME_LEN];
};

/**
 * struct counter - one row of the counters map
 * @packets: how many (a GSO packet counts once)
 * @bytes: their length with the Ethernet header
 */
struct counter {
	__u64 packets;
	__u64 bytes;
};

/* Written by the programs, one row per network slot, hook and reason; read by the loader package. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NETWORK_SLOTS * HOOKS * REASONS);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

/*
 * The slot of each network, from 1. Written by the loader package at a network's
 * first ADD; never read by the programs, which find the slot in endpoints and
 * devices.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NETWORK_SLOTS - 1);
	__type(key, struct network_name);
	__type(value, __u32);
} networks SEC(".maps");

#define PATH_SLOTS 2048

/**
 * struct path - what became of the packets that a container sent
 * @carried: how many the programs carried past the stack, or answered
 * @dropped: how many they dropped
 * @left: how many they left to the stack
 */
struct path {
	__u64 carried;
	__u64 dropped;
	__u64 left;
};

/* Written by the programs, one row per path slot; read by the loader package. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PATH_SLOTS);
	__type(key, __u32);
	__type(value, struct path);
} paths SEC(".maps");

/**
 * struct path_slots - which path slots were given away
 * @taken: a bit for each, from the lowest
 * @wait: how many devices go without before it is looked for free ones again
 */
struct path_slots {
	__u64 taken[PATH_SLOTS / 64];
	__u64 wait;
};

/* Written and read by the loader package alone. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_slots);
} path_slots SEC(".maps");

/* Where this packet is counted, as soon as it is known; in scratch space of tc programs. */
static __always_inline void count_for(struct __sk_buff *skb, const struct slots *slots)
{
	skb->cb[3] = *(const __u32 *)slots;
}

static __always_inline void count_for_nobody(struct __sk_buff *skb)
{
	skb->cb[3] = 0;
}

/*
 * What found no endpoint on its way (ARP, a source that is nobody's) still came
 * by a device of some network.
 */
static __always_inline struct slots count_slots(struct __sk_buff *skb, enum hook hook)
{
	struct slots slots = { skb->cb[3], skb->cb[3] >> 16 };
	struct device *dev;

	if (hook != HOOK_ENDPOINT || skb->cb[3])
		return slots;
	dev = device_lookup(skb->ifindex);
	return dev ? dev->slots : slots;
}

/* Count the packet of a program: for its network, and for the container that sent it. */
static __always_inline void count(struct __sk_buff *skb, enum hook hook, __u32 reason)
{
	struct slots slots = count_slots(skb, hook);
	__u32 row = (slots.network * HOOKS + hook) * REASONS + reason, sender = slots.path;
	struct counter *counter;
	struct path *path;

	counter = bpf_map_lookup_elem(&counters, &row);
	if (counter) {
		counter->packets++;
		counter->bytes += skb->len;
	}
	if (hook != HOOK_ENDPOINT)
		return;
	path = bpf_map_lookup_elem(&paths, &sender);
	if (!path)
		return;
	if (reason < REASON_DROP_FIRST)
		path->carried++;
	else if (reason < REASON_NEXT_FIRST)
		path->dropped++;
	else
		path->left++;
}

#endif
