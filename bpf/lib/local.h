/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_LOCAL_H
#define ZIPLINE_LOCAL_H

/* The straight way between two containers of one network on this node, as on one link: no hop and no translation. */

/**
 * local_destination() - the neighbour that the packet may be carried to directly
 * @skb: the packet
 * @source: the endpoint it comes from
 * @addr: destination address
 * @dest: set to the endpoint found
 *
 * Return: 0, or a negative reason
 */
static __always_inline int local_destination(struct __sk_buff *skb, const struct endpoint *source,
					     const struct address *addr, struct endpoint **dest)
{
	struct endpoint *ep = endpoint_lookup(addr);

	if (!ep)
		return -REASON_NEXT_NO_ENDPOINT;
	if (ep->ifindex == skb->ifindex)
		return -REASON_NEXT_SELF;
	if (ep->network != source->network || !ep->network)
		return -REASON_NEXT_NETWORK;
	if (!(ep->flags & source->flags & ENDPOINT_DIRECT))
		return -REASON_NEXT_NOT_DIRECT;
	*dest = ep;
	return 0;
}

/**
 * local_deliver() - carry the packet into the neighbour's container
 * @skb: the packet
 * @dest: the neighbour
 *
 * Both ends see one L2 segment: the frame comes from the MAC that answers ARP
 * there, and the TTL is untouched. The mark is the node's and ends here as it
 * would on a veth (redirect_peer keeps it). The packet type is already
 * PACKET_HOST, which kernels before the scrub fix of 6.15 hand on unchanged.
 * The Ethernet header is always in the linear part, and writing to it costs
 * half of what bpf_skb_store_bytes does.
 */
static __always_inline int local_deliver(struct __sk_buff *skb, const struct endpoint *dest)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return -REASON_NEXT_MALFORMED;
	mac_copy(eth->h_dest, dest->mac);
	mac_copy(eth->h_source, dest->host_mac);
	skb->mark = 0;
	bpf_redirect_peer(dest->ifindex, 0);
	return -REASON_DIRECT;
}

/**
 * local_forward() - a packet that conntrack does not know, between neighbours
 * @skb: the packet
 * @pkt: its headers
 * @source: the endpoint it comes from
 *
 * Return: negative reason
 */
static __always_inline int local_forward(struct __sk_buff *skb, const struct packet *pkt,
					 const struct endpoint *source)
{
	struct endpoint *dest;
	int ret;

	ret = local_destination(skb, source, &pkt->daddr, &dest);
	if (ret)
		return ret;
	if (packet_size(skb, pkt) > dest->mtu)
		return -REASON_NEXT_MTU;
	return local_deliver(skb, dest);
}

#endif
