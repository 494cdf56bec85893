/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_CONNTRACK_H
#define ZIPLINE_CONNTRACK_H

/* What is used of the kernel's struct; CO-RE finds it there. */
struct nf_conn {
	unsigned long status;
} __attribute__((preserve_access_index));

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
extern void bpf_ct_release(struct nf_conn *nf_conn) __ksym __weak;

/*
 * Set by the loader before load: whether the kernel has a bpf_skb_ct_lookup
 * that suits (probe_conntrack loads). Where it is false the verifier removes
 * the lookup, so the program loads on kernels without it.
 */
volatile const bool have_conntrack = true;

/**
 * conntrack_lookup() - does conntrack know this packet's own tuple?
 * @skb: the packet
 * @tuple: its addresses and ports
 * @len: of the family's half of @tuple
 * @protocol: IPPROTO_TCP or IPPROTO_UDP
 *
 * A known flow may be translated, policed or accounted: it belongs to the stack.
 *
 * Return: 0 if conntrack does not know it, else a negative reason
 */
static __always_inline int conntrack_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple,
					    __u32 len, __u8 protocol)
{
	struct bpf_ct_opts opts = { .netns_id = BPF_F_CURRENT_NETNS, .l4proto = protocol };
	struct nf_conn *ct;

	if (!have_conntrack || !bpf_skb_ct_lookup)
		return 0;
	ct = bpf_skb_ct_lookup(skb, tuple, len, &opts, sizeof(opts));
	if (ct) {
		bpf_ct_release(ct);
		return -REASON_NEXT_TRACKED;
	}
	return opts.error == -ENOENT ? 0 : -REASON_NEXT_CONNTRACK;
}

#endif
