//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * The programs of zipline. They only ever send a packet where the stack would
 * have delivered it, sooner; whatever they leave alone (TCX_NEXT) the stack
 * carries. With all of them detached every packet still arrives.
 */

#include "lib/types.h"
#include "lib/kernel.h"
#include "headers/bpf_helpers.h"
#include "headers/bpf_endian.h"
#include "lib/reason.h"
#include "lib/maps.h"
#include "lib/count.h"
#include "lib/verdict.h"
#include "lib/packet.h"
#include "lib/source.h"
#include "lib/arp.h"
#include "lib/conntrack.h"
#include "lib/admission.h"
#include "lib/port.h"
#include "lib/answer.h"
#include "lib/turn.h"
#include "lib/flow.h"
#include "lib/local.h"
#include "lib/rewrite.h"
#include "lib/route.h"
#include "lib/carry.h"
#include "lib/arrival.h"
#include "lib/forward.h"
#include "lib/nd.h"
#include "lib/ipv4.h"
#include "lib/ipv6.h"

/*
 * A tag with VLAN id 0 only carries a priority: the stack takes it off and goes
 * on as if it had not been there, so the frame is checked like any other. With
 * any other id the frame ends at a VLAN device or nowhere.
 */
static __always_inline int endpoint_handle(struct __sk_buff *skb)
{
	bool tagged = skb->vlan_present;

	if (tagged && skb->vlan_tci & VLAN_VID_MASK)
		return -REASON_NEXT_VLAN;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return ipv4_from_endpoint(skb);
	case bpf_htons(ETH_P_IPV6):
		return ipv6_from_endpoint(skb);
	case bpf_htons(ETH_P_ARP):
		return arp_from_endpoint(skb);
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		/* The stack would take off both tags and believe the source address inside. */
		return tagged ? -REASON_DROP_VLAN : -REASON_NEXT_VLAN;
	}
	return -REASON_NEXT_ETHERTYPE;
}

/* Attached to the ingress of every host veth: what a container sends. */
SEC("tc")
int from_endpoint(struct __sk_buff *skb)
{
	skb->tc_index = 0;
	count_for_nobody(skb);
	return verdict(skb, HOOK_ENDPOINT, endpoint_handle(skb));
}

static __always_inline int uplink_handle(struct __sk_buff *skb)
{
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return ipv4_from_uplink(skb);
	case bpf_htons(ETH_P_IPV6):
		return ipv6_from_uplink(skb);
	}
	return -REASON_NEXT_ETHERTYPE;
}

/* Attached to the ingress of every uplink: what comes from outside. */
SEC("tc")
int from_uplink(struct __sk_buff *skb)
{
	skb->tc_index = 0;
	count_for_nobody(skb);
	return verdict(skb, HOOK_UPLINK, uplink_handle(skb));
}

static __always_inline int device_handle(struct __sk_buff *skb, __u32 directions)
{
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return ipv4_to_device(skb, directions);
	case bpf_htons(ETH_P_IPV6):
		return ipv6_to_device(skb, directions);
	}
	return -REASON_NEXT_ETHERTYPE;
}

/*
 * Attached to the egress of host veths and uplinks: sees which packets came
 * through the stack. Those that nobody asked about (the node's own, those that
 * the other programs carry) are not even counted.
 */
SEC("tc")
int to_device(struct __sk_buff *skb)
{
	__u32 admit = skb->tc_index;

	if ((admit & ~ADMIT_DIRECTIONS) != ADMIT)
		return TC_ACT_UNSPEC;
	skb->tc_index = 0;
	count_for_nobody(skb);
	return verdict(skb, HOOK_DEVICE, device_handle(skb, admit & ADMIT_DIRECTIONS));
}

/*
 * Never attached: the loader loads it to find out whether conntrack_lookup can
 * work on this kernel. It calls the kernel functions without asking first.
 */
SEC("tc")
int probe_conntrack(struct __sk_buff *skb)
{
	struct bpf_ct_opts opts = { .netns_id = BPF_F_CURRENT_NETNS, .l4proto = IPPROTO_TCP };
	struct bpf_sock_tuple tuple = {};
	struct nf_conn *ct;

	ct = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));
	if (ct) {
		bpf_ct_change_timeout(ct, 0);
		bpf_ct_release(ct);
	}
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
