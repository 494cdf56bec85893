/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_CONNTRACK_H
#define ZIPLINE_CONNTRACK_H

/* What is asked of the kernel's conntrack, by its own functions: the entry of a packet, and whether it may be carried. */

/* The first 12 bytes of the kernel's struct, which every kernel with the kfunc accepts. */
struct bpf_ct_opts {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb_ctx, struct bpf_sock_tuple *bpf_tuple,
					 __u32 tuple__sz, struct bpf_ct_opts *opts,
					 __u32 opts__sz) __ksym __weak;
extern int bpf_ct_change_timeout(struct nf_conn *nfct, __u32 timeout) __ksym __weak;
extern void bpf_ct_release(struct nf_conn *nf_conn) __ksym __weak;

/*
 * Set by the loader before load: whether the kernel has the conntrack
 * functions above (probe_conntrack loads). Where it is false the verifier
 * removes what needs them, so the program loads on kernels without them. To
 * test the functions' own addresses instead is no way: the kernel refuses that
 * where they are in a module.
 */
volatile const bool have_conntrack = true;

/* Set by the loader before load: jiffies per second, the unit of conntrack's timeouts. */
volatile const __u32 tick_hz = 250;

/**
 * conntrack_lookup() - the entry that a tuple belongs to
 * @skb: the packet
 * @pkt: whose tuple it is
 * @v4: IPv4, else IPv6; a constant
 * @inverse: look for the tuple of the answer; a constant
 * @opts: for the outcome: the direction that was found
 *
 * Return: the entry, to be released, or NULL
 */
static __always_inline struct nf_conn *conntrack_lookup(struct __sk_buff *skb, const struct packet *pkt,
							bool v4, bool inverse, struct bpf_ct_opts *opts)
{
	const struct address *saddr = inverse ? &pkt->daddr : &pkt->saddr;
	const struct address *daddr = inverse ? &pkt->saddr : &pkt->daddr;
	__be16 sport = inverse ? pkt->ports.dest : pkt->ports.source;
	__be16 dport = inverse ? pkt->ports.source : pkt->ports.dest;
	struct bpf_sock_tuple tuple = {};

	opts->netns_id = BPF_F_CURRENT_NETNS;
	opts->l4proto = pkt->protocol;
	if (v4) {
		tuple.ipv4.saddr = saddr->w[3];
		tuple.ipv4.daddr = daddr->w[3];
		tuple.ipv4.sport = sport;
		tuple.ipv4.dport = dport;
		return bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv4), opts, sizeof(*opts));
	}
	__builtin_memcpy(tuple.ipv6.saddr, saddr->w, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, daddr->w, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = sport;
	tuple.ipv6.dport = dport;
	return bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv6), opts, sizeof(*opts));
}

/* An entry with a helper (FTP, SIP) has a payload to read and change; the kernel's flowtable leaves it alone too. */
static __always_inline bool conntrack_helped(const struct nf_conn *ct)
{
	const struct nf_ct_ext *ext = ct->ext;

	return ext && ext->offset[NF_CT_EXT_HELPER];
}

/**
 * conntrack_plain() - has the flow an answer, and nothing that only the stack can do?
 * @ct: the entry
 *
 * UDP is assured two seconds after the first answer only, so the first answer is
 * enough.
 *
 * Return: 0 if so, else a negative reason
 */
static __always_inline int conntrack_plain(const struct nf_conn *ct)
{
	unsigned long status = ct->status;

	if (status & IPS_OFFLOAD)
		return -REASON_NEXT_OFFLOADED;
	if ((status & (IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_DYING | IPS_SEQ_ADJUST)) !=
	    (IPS_CONFIRMED | IPS_SEEN_REPLY))
		return -REASON_NEXT_NOT_ESTABLISHED;
	return conntrack_helped(ct) ? -REASON_NEXT_HELPER : 0;
}

/**
 * conntrack_carried() - may packets of this entry be carried past the stack?
 * @ct: the entry
 * @pkt: the packet
 *
 * What opens, closes or resets a TCP connection is conntrack's to see.
 *
 * Return: 0 if so, else a negative reason
 */
static __always_inline int conntrack_carried(const struct nf_conn *ct, const struct packet *pkt)
{
	int ret = conntrack_plain(ct);

	if (ret || pkt->protocol != IPPROTO_TCP)
		return ret;
	if (pkt->tcp_flags & TCP_TURN)
		return -REASON_NEXT_TCP_FLAGS;
	if (!(ct->status & IPS_ASSURED) || ct->proto.tcp.state != TCP_CONNTRACK_ESTABLISHED)
		return -REASON_NEXT_NOT_ESTABLISHED;
	return 0;
}

/* Is the SYN of this TCP connection answered, and the answer not acknowledged yet? */
static __always_inline bool conntrack_answered(const struct nf_conn *ct)
{
	return ct->proto.tcp.state == TCP_CONNTRACK_SYN_RECV && !conntrack_plain(ct);
}

#endif
