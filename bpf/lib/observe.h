/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_OBSERVE_H
#define ZIPLINE_OBSERVE_H

/* What the tracer reads of a packet. Nothing is ever written to it. */

#define TRACE_SCTP 132

/**
 * struct tuple - who talks to whom
 * @saddr: source address; of an ARP packet, the sender's
 * @daddr: destination address; of an ARP packet, the target's
 * @sport: source port, 0 where there is none
 * @dport: destination port
 * @ethertype: in host order
 * @protocol: of the IP header; 0 of what is not IP
 * @tcp_flags: of TCP, 0 of others
 */
struct tuple {
	struct address saddr;
	struct address daddr;
	__be16 sport;
	__be16 dport;
	__u16 ethertype;
	__u8 protocol;
	__u8 tcp_flags;
};

/**
 * struct event - one verdict
 * @time: ns of the monotonic clock
 * @came: the packet as it came to the program
 * @went: and as it left it
 * @length: with the Ethernet header, before segmentation
 * @device: where it was seen
 * @endpoint: host veth of the endpoint that the event is about, 0 where it is none
 * @peer: host veth of the other end, 0 where that is no endpoint here
 * @mark: of conntrack's entry
 * @hook: enum hook
 * @reason: enum reason
 * @known: whether conntrack's entry was at hand
 * @pad: 0
 */
struct event {
	__u64 time;
	struct tuple came;
	struct tuple went;
	__u32 length;
	__u32 device;
	__u32 endpoint;
	__u32 peer;
	__u32 mark;
	__u8 hook;
	__u8 reason;
	__u8 known;
	__u8 pad;
};

/* Never read: a type that nothing refers to is missing from the object's BTF. */
volatile const struct event event_type;

static __always_inline void tuple_read_ports(struct __sk_buff *skb, struct tuple *t, __u32 offset)
{
	struct tcp_middle tcp;
	struct ports ports;

	if (t->protocol != IPPROTO_TCP && t->protocol != IPPROTO_UDP && t->protocol != TRACE_SCTP)
		return;
	if (bpf_skb_load_bytes(skb, offset, &ports, sizeof(ports)))
		return;
	t->sport = ports.source;
	t->dport = ports.dest;
	if (t->protocol == IPPROTO_TCP && !bpf_skb_load_bytes(skb, offset + TCP_MIDDLE_OFFSET, &tcp, sizeof(tcp)))
		t->tcp_flags = tcp.flags;
}

/**
 * tuple_read() - read addresses and ports from the packet
 * @skb: the packet
 * @t: filled; all zero but for what could be read
 */
static __always_inline void tuple_read(struct __sk_buff *skb, struct tuple *t)
{
	struct ipv6hdr v6;
	struct iphdr v4;
	struct arp arp;

	__builtin_memset(t, 0, sizeof(*t));
	t->ethertype = bpf_ntohs(skb->protocol);
	if (t->ethertype == ETH_P_IP && !bpf_skb_load_bytes(skb, ETH_HLEN, &v4, sizeof(v4))) {
		t->saddr = address_v4(v4.saddr);
		t->daddr = address_v4(v4.daddr);
		t->protocol = v4.protocol;
		if (!(v4.frag_off & bpf_htons(IP_OFFSET)))
			tuple_read_ports(skb, t, ETH_HLEN + v4.ihl * 4);
	} else if (t->ethertype == ETH_P_IPV6 && !bpf_skb_load_bytes(skb, ETH_HLEN, &v6, sizeof(v6))) {
		t->saddr = address_v6(&v6.saddr);
		t->daddr = address_v6(&v6.daddr);
		t->protocol = v6.nexthdr;
		tuple_read_ports(skb, t, ETH_HLEN + sizeof(v6));
	} else if (t->ethertype == ETH_P_ARP && !bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp))) {
		t->saddr = address_v4(arp.ar_sip);
		t->daddr = address_v4(arp.ar_tip);
	}
}

static __always_inline void tuple_turn(struct tuple *t, const struct tuple *of)
{
	*t = *of;
	t->saddr = of->daddr;
	t->daddr = of->saddr;
	t->sport = of->dport;
	t->dport = of->sport;
}

/* A macro, since the compiler must see which of the two tuples it is. */
#define TUPLE_READ_ENTRY(t, entry)                                                                 \
	do {                                                                                       \
		if ((t)->ethertype == ETH_P_IP) {                                                  \
			(t)->saddr = address_v4((entry)->src.u3.all[0]);                           \
			(t)->daddr = address_v4((entry)->dst.u3.all[0]);                           \
		} else {                                                                           \
			for (int i = 0; i < 4; i++) {                                              \
				(t)->saddr.w[i] = (entry)->src.u3.all[i];                          \
				(t)->daddr.w[i] = (entry)->dst.u3.all[i];                          \
			}                                                                          \
		}                                                                                  \
		(t)->sport = (entry)->src.u.all;                                                   \
		(t)->dport = (entry)->dst.u.all;                                                   \
	} while (0)

/**
 * tuple_before() - the packet as it came to the node
 * @skb: the packet
 * @event: its tuple is that after translation; gets the mark
 * @first: set, where conntrack knows the flow, to the tuple before translation
 *
 * What a translated packet would be answered by is one tuple of the entry; what
 * it came as is the other.
 */
static __always_inline void tuple_before(struct __sk_buff *skb, struct event *event, struct tuple *first)
{
	struct packet pkt = { .saddr = event->went.saddr, .daddr = event->went.daddr, .protocol = event->went.protocol };
	struct bpf_ct_opts opts = {};
	struct nf_conn *ct;

	if (!have_conntrack || (pkt.protocol != IPPROTO_TCP && pkt.protocol != IPPROTO_UDP))
		return;
	pkt.ports.source = event->went.sport;
	pkt.ports.dest = event->went.dport;
	if (event->went.ethertype == ETH_P_IP)
		ct = conntrack_lookup(skb, &pkt, true, true, &opts);
	else
		ct = conntrack_lookup(skb, &pkt, false, true, &opts);
	if (!ct)
		return;
	if (opts.dir)
		TUPLE_READ_ENTRY(first, &ct->tuplehash[0].tuple);
	else
		TUPLE_READ_ENTRY(first, &ct->tuplehash[1].tuple);
	event->known = 1;
	if (kernel_has(ct->mark))
		event->mark = ct->mark;
	bpf_ct_release(ct);
}

/**
 * event_came() - the packet as it came to the program
 * @skb: the packet
 * @event: its went is set; gets its came
 * @first: set to the packet as it came to the node
 */
static __always_inline void event_came(struct __sk_buff *skb, struct event *event, struct tuple *first)
{
	*first = event->went;
	event->came = event->went;
	switch (event->reason) {
	case REASON_ARP_REPLY:
	case REASON_ND_REPLY:
		/* The question has become its answer. */
		tuple_turn(&event->came, &event->went);
		*first = event->came;
		break;
	case REASON_TRACKED_LOCAL:
	case REASON_TRACKED_UPLINK:
		tuple_before(skb, event, first);
		event->came = *first;
		break;
	default:
		/* The stack has translated it already, which is no doing of the program. */
		if (event->hook == HOOK_DEVICE)
			tuple_before(skb, event, first);
	}
}

#endif
