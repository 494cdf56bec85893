/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_ARP_H
#define ZIPLINE_ARP_H

/*
 * Containers ask for each other's MAC as on one link, but nothing is flooded from
 * one host veth to the others: requests for those of this node are answered here.
 */

#define ARPHRD_ETHER 1
#define ARPOP_REQUEST 1
#define ARPOP_REPLY 2

struct arp {
	__be16 ar_hrd;
	__be16 ar_pro;
	__u8 ar_hln;
	__u8 ar_pln;
	__be16 ar_op;
	__u8 ar_sha[ETH_ALEN];
	__be32 ar_sip;
	__u8 ar_tha[ETH_ALEN];
	__be32 ar_tip;
} __packed;

struct arp_frame {
	struct ethhdr eth;
	struct arp arp;
} __packed;

static __always_inline bool arp_valid(const struct arp *arp)
{
	return arp->ar_hrd == bpf_htons(ARPHRD_ETHER) && arp->ar_pro == bpf_htons(ETH_P_IP) &&
	       arp->ar_hln == ETH_ALEN && arp->ar_pln == sizeof(arp->ar_sip);
}

/* The sender fields are what the receiver's neighbour table believes: they are checked like a source address. */
static __always_inline int arp_source_check(struct __sk_buff *skb, const struct arp_frame *frame)
{
	struct address sender = address_v4(frame->arp.ar_sip);
	struct endpoint *source;
	int ret;

	if (!frame->arp.ar_sip)
		return source_check_mac(skb, &frame->eth);
	ret = source_check(skb, &frame->eth, &sender, -REASON_DROP_ARP, &source);
	if (ret)
		return ret;
	if (source && source->flags & ENDPOINT_MAC_CHECK &&
	    !mac_equal(frame->arp.ar_sha, source->mac))
		return -REASON_DROP_MAC;
	return 0;
}

/**
 * arp_reply() - turn the request into its answer and send it back
 * @skb: the packet
 * @frame: a copy of it, changed
 * @mac: the MAC of the host veth, which answers for everyone
 */
static __always_inline int arp_reply(struct __sk_buff *skb, struct arp_frame *frame, const __u8 *mac)
{
	__be32 target = frame->arp.ar_tip;

	mac_copy(frame->eth.h_dest, frame->eth.h_source);
	mac_copy(frame->eth.h_source, mac);
	frame->arp.ar_op = bpf_htons(ARPOP_REPLY);
	mac_copy(frame->arp.ar_tha, frame->arp.ar_sha);
	frame->arp.ar_tip = frame->arp.ar_sip;
	mac_copy(frame->arp.ar_sha, mac);
	frame->arp.ar_sip = target;
	if (bpf_skb_store_bytes(skb, 0, frame, sizeof(*frame), 0))
		return -REASON_NEXT_ARP;
	bpf_redirect(skb->ifindex, 0);
	return -REASON_ARP_REPLY;
}

/**
 * arp_from_endpoint() - an ARP packet from a container
 * @skb: the packet
 *
 * Answered: a request for an endpoint of one of the device's networks that
 * lives behind another device. So a probe for the asker's own address and a gratuitous ARP
 * get no answer, and an address probe (sender 0.0.0.0) gets one exactly if
 * somebody else has the address. The stack answers for the gateway itself, and
 * by proxy ARP for everything that it can route.
 */
static __always_inline int arp_from_endpoint(struct __sk_buff *skb)
{
	struct arp_frame frame;
	struct address addr;
	struct device *dev;
	int ret;

	if (bpf_skb_load_bytes(skb, 0, &frame, sizeof(frame)))
		return -REASON_NEXT_MALFORMED;
	if (!arp_valid(&frame.arp))
		return -REASON_NEXT_ARP;
	ret = arp_source_check(skb, &frame);
	if (ret)
		return ret;
	if (skb->vlan_present)
		return -REASON_NEXT_VLAN;
	if (frame.arp.ar_op != bpf_htons(ARPOP_REQUEST) || skb->pkt_type == PACKET_OTHERHOST)
		return -REASON_NEXT_ARP;
	addr = address_v4(frame.arp.ar_tip);
	dev = device_lookup(skb->ifindex);
	if (!dev || !device_neighbour(dev, skb->ifindex, &addr))
		return -REASON_NEXT_ARP;
	return arp_reply(skb, &frame, dev->host_mac);
}

#endif
