/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_SOURCE_H
#define ZIPLINE_SOURCE_H

/* What a container may say that it is: an address leased to its device and, where that is asked for, its own MAC. */

/**
 * source_check_mac() - the check for what has no leased source address by nature
 * @skb: the packet
 * @eth: its Ethernet header
 *
 * Link-local and unspecified source addresses are nobody's lease: DHCP, address
 * probes and neighbour discovery use them, and the stack never forwards them.
 */
static __always_inline int source_check_mac(struct __sk_buff *skb, const struct ethhdr *eth)
{
	struct device *dev = device_lookup(skb->ifindex);

	if (dev && dev->flags & ENDPOINT_MAC_CHECK && !mac_equal(eth->h_source, dev->mac))
		return -REASON_DROP_MAC;
	return 0;
}

/**
 * source_unleased() - a source address that is not leased to the device
 * @skb: the packet
 * @eth: its Ethernet header
 * @reason: why to drop the packet where the device is checked, negative
 *
 * A device that is attached but not yet published in the devices map is
 * checked: whoever publishes it makes the exception.
 */
static __always_inline int source_unleased(struct __sk_buff *skb, const struct ethhdr *eth, int reason)
{
	struct device *dev = device_lookup(skb->ifindex);

	if (!dev || dev->flags & ENDPOINT_SOURCE_CHECK)
		return reason;
	return source_check_mac(skb, eth);
}

/**
 * source_check() - may this device send from this address?
 * @skb: the packet
 * @eth: its Ethernet header
 * @addr: the source address (of an ARP packet: the sender's)
 * @reason: why to drop the packet if not, negative
 * @source: set to the endpoint of @addr when it is leased to the device, else to NULL
 *
 * Return: 0 if the packet may go on, else a negative reason
 */
static __always_inline int source_check(struct __sk_buff *skb, const struct ethhdr *eth,
					const struct address *addr, int reason,
					struct endpoint **source)
{
	struct endpoint *ep = endpoint_lookup(addr);

	*source = NULL;
	if (!ep || ep->ifindex != skb->ifindex)
		return source_unleased(skb, eth, reason);
	count_for(skb, &ep->slots);
	if (ep->flags & ENDPOINT_MAC_CHECK && !mac_equal(eth->h_source, ep->mac))
		return -REASON_DROP_MAC;
	*source = ep;
	return 0;
}

#endif
