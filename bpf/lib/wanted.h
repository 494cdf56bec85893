/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_WANTED_H
#define ZIPLINE_WANTED_H

/*
 * Which events are wanted. All of it is decided here, so that a flood of what
 * nobody asked for costs nothing but this. Constants that are off take the
 * verifier's dead code with them.
 */

#define BPF_MAP_TYPE_PERCPU_HASH 5
#define BPF_MAP_TYPE_LPM_TRIE 11
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_MAP_TYPE_ARRAY 2

/* Set by the loader/trace package before load. */
volatile const __u32 want_reasons[4]; /* a bit for each reason */
volatile const __u32 want_protocols[8]; /* a bit for each IP protocol */
volatile const bool want_arp;
volatile const bool want_other; /* what is neither IP nor ARP */
volatile const bool filter_ports; /* trace_ports decides */
volatile const bool filter_prefixes; /* trace_prefixes decides */
volatile const bool filter_devices; /* trace_devices decides */
volatile const bool counting; /* add up in trace_counts, no events */
volatile const __u32 sample; /* one in so many; 0 and 1: all */
volatile const __u64 rate; /* events in a second; 0: as many as there are */

/* Written by the programs, read by the loader/trace package. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} trace_events SEC(".maps");

/* Written by the loader/trace package, in host order; read by the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u16);
	__type(value, __u8);
} trace_ports SEC(".maps");

struct prefix {
	__u32 bits;
	struct address addr;
};

/* Written by the loader/trace package; read by the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 256);
	__type(key, struct prefix);
	__type(value, __u8);
} trace_prefixes SEC(".maps");

/* Keyed by ifindex of host veths. Written by the loader/trace package; read by the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u8);
} trace_devices SEC(".maps");

struct key {
	__u32 endpoint;
	__u16 hook;
	__u16 reason;
};

/* Written by the programs, read by the loader/trace package. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct key);
	__type(value, struct counter);
} trace_counts SEC(".maps");

#define STAT_LOST 0 /* no room in the ring buffer, or in trace_counts */
#define STAT_SUPPRESSED 1 /* over the rate */
#define TRACE_STATS 2

/* Written by the programs, read by the loader/trace package. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TRACE_STATS);
	__type(key, __u32);
	__type(value, __u64);
} trace_stats SEC(".maps");

/* How many events there were in this second. Used by the programs alone. */
struct trace_window {
	__u64 second;
	__u64 events;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_window);
} trace_windows SEC(".maps");

static __always_inline void stat_add(__u32 row)
{
	__u64 *stat = bpf_map_lookup_elem(&trace_stats, &row);

	if (stat)
		(*stat)++;
}

static __always_inline bool reason_wanted(__u32 reason)
{
	return want_reasons[(reason >> 5) & 3] & 1U << (reason & 31);
}

static __always_inline bool protocol_wanted(const struct tuple *t)
{
	if (t->ethertype == ETH_P_IP || t->ethertype == ETH_P_IPV6)
		return want_protocols[t->protocol >> 5] & 1U << (t->protocol & 31);
	return t->ethertype == ETH_P_ARP ? want_arp : want_other;
}

/*
 * Whom the event is about: the container that sent the packet, or that gets it
 * when it comes from elsewhere.
 */
static __always_inline void event_endpoints(struct event *event, const struct tuple *first)
{
	struct endpoint *from = endpoint_lookup(&first->saddr), *to = endpoint_lookup(&event->went.daddr);
	__u32 source = from ? from->ifindex : 0, target = to ? to->ifindex : 0;

	if (event->hook == HOOK_ENDPOINT)
		source = event->device;
	if (event->hook == HOOK_ENDPOINT || !target) {
		event->endpoint = source;
		event->peer = target;
	} else {
		event->endpoint = target;
		event->peer = source;
	}
}

static __always_inline bool device_wanted(__u32 ifindex)
{
	return ifindex && bpf_map_lookup_elem(&trace_devices, &ifindex);
}

static __always_inline bool port_wanted(__be16 port)
{
	__u16 key = bpf_ntohs(port);

	return key && bpf_map_lookup_elem(&trace_ports, &key);
}

static __always_inline bool address_wanted(const struct address *addr)
{
	struct prefix key = { .bits = 128, .addr = *addr };

	return bpf_map_lookup_elem(&trace_prefixes, &key);
}

static __always_inline bool event_wanted(const struct event *event)
{
	const struct tuple *came = &event->came, *went = &event->went;

	if (filter_devices && !device_wanted(event->endpoint) && !device_wanted(event->peer))
		return false;
	if (filter_ports && !port_wanted(came->sport) && !port_wanted(came->dport) &&
	    !port_wanted(went->sport) && !port_wanted(went->dport))
		return false;
	return !filter_prefixes || address_wanted(&came->saddr) || address_wanted(&came->daddr) ||
	       address_wanted(&went->saddr) || address_wanted(&went->daddr);
}

static __always_inline void event_count(const struct event *event)
{
	struct key key = { .endpoint = event->endpoint, .hook = event->hook, .reason = event->reason };
	struct counter first = { .packets = 1, .bytes = event->length }, *row;

	row = bpf_map_lookup_elem(&trace_counts, &key);
	if (row) {
		row->packets++;
		row->bytes += event->length;
	} else if (bpf_map_update_elem(&trace_counts, &key, &first, BPF_ANY)) {
		stat_add(STAT_LOST);
	}
}

static __always_inline bool event_sampled(void)
{
	return sample <= 1 || bpf_get_prandom_u32() % sample == 0;
}

/* Two CPUs may begin a second at once: then there are a few events more in it. */
static __always_inline bool event_allowed(void)
{
	__u64 second = bpf_ktime_get_ns() / 1000000000;
	struct trace_window *window;
	__u32 row = 0;

	if (!rate)
		return true;
	window = bpf_map_lookup_elem(&trace_windows, &row);
	if (!window)
		return true;
	if (window->second != second) {
		window->second = second;
		window->events = 0;
	}
	if (window->events >= rate) {
		stat_add(STAT_SUPPRESSED);
		return false;
	}
	__sync_fetch_and_add(&window->events, 1);
	return true;
}

#endif
