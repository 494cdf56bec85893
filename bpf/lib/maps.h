/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_MAPS_H
#define ZIPLINE_MAPS_H

/*
 * The maps are shared by every version of the programs that uses the same
 * layout version (loader/paths.go). A change of a key or value below needs a
 * new one.
 */

/**
 * struct address - an IP address of either family
 * @w: IPv6 as it is on the wire, IPv4 as ::ffff:a.b.c.d
 */
struct address {
	__be32 w[4];
};

/* The flags of an endpoint, and of its device. */
enum endpoint_flags {
	ENDPOINT_SOURCE_CHECK = 1, /* drop what has a source address not leased to the device */
	ENDPOINT_MAC_CHECK = 2, /* drop what has another source MAC */
	ENDPOINT_DIRECT = 4, /* may talk to its neighbours past the stack */
	ENDPOINT_TRACKED = 8, /* established flows may pass the stack by */
};

/**
 * struct slots - where packets are counted
 * @network: of the network in the counters map
 * @path: of the device in the paths map
 *
 * 0 is for nobody, and for all that came when no slot was left.
 */
struct slots {
	__u16 network;
	__u16 path;
};

/**
 * struct endpoint - where an address lives
 * @ifindex: host veth
 * @mtu: MTU of the container's device
 * @network: addresses with equal network are neighbours on one L2 segment; 0
 *           has no neighbours
 * @mac: MAC of the container's device
 * @host_mac: MAC of the host veth
 * @flags: enum endpoint_flags
 * @slow_path_mark: bits of the conntrack mark that keep a flow in the stack
 * @slots: where its packets are counted
 */
struct endpoint {
	__u32 ifindex;
	__u32 mtu;
	__u64 network;
	__u8 mac[ETH_ALEN];
	__u8 host_mac[ETH_ALEN];
	__u32 flags;
	__u32 slow_path_mark;
	struct slots slots;
};

#define DEVICE_NETWORKS 4

/**
 * struct device - what holds for a host veth whatever the source address
 * @networks: the networks of its addresses, 0 where there is none; neighbours
 *            in a fifth network are the stack's to answer for
 * @mac: MAC of the container's device
 * @host_mac: MAC of the host veth
 * @flags: enum endpoint_flags
 * @slots: where its packets are counted
 * @pad: 0
 *
 * A packet whose source address is leased to nobody finds no endpoint, yet the
 * programs must know whether its device is checked, and which networks an ARP
 * probe or a solicitation from a link-local address asks in.
 */
struct device {
	__u64 networks[DEVICE_NETWORKS];
	__u8 mac[ETH_ALEN];
	__u8 host_mac[ETH_ALEN];
	__u32 flags;
	struct slots slots;
	__u32 pad;
};

/**
 * struct uplink - a device by which the node reaches others
 * @mtu: the least that a route by it has of its own, 0 where none has: the
 *       stack keeps it when it forwards, bpf_fib_lookup does not tell it
 * @several: whether there are others, so that what comes in by it has to be
 *           what goes out by it
 */
struct uplink {
	__u32 mtu;
	__u32 several;
};

/**
 * struct nat_port - a port by which outside may reach containers
 * @seen: when it last did, by port_clock()
 * @asked: when conntrack was last asked without that
 */
struct nat_port {
	__u8 seen;
	__u8 asked;
};

/**
 * struct nat_ports - all of them, by the port as it is on the wire
 * @port: see struct nat_port
 */
struct nat_ports {
	struct nat_port port[65536];
};

/* Written by the loader package at ADD, DEL and GC; read by the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct address);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

/*
 * Keyed by ifindex. Written by the loader package together with the first
 * endpoint of the device; read by the programs, never on the direct path.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

/*
 * Keyed by ifindex: the devices that packets may leave by. Written by the
 * loader package at ADD, when it attaches from_uplink there; read by from_endpoint.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct uplink);
} uplinks SEC(".maps");

/* Written and read by the programs: see lib/port.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nat_ports);
} nat_ports SEC(".maps");

static __always_inline struct endpoint *endpoint_lookup(const struct address *addr)
{
	return bpf_map_lookup_elem(&endpoints, addr);
}

static __always_inline struct device *device_lookup(__u32 ifindex)
{
	return bpf_map_lookup_elem(&devices, &ifindex);
}

static __always_inline struct uplink *uplink_lookup(__u32 ifindex)
{
	return bpf_map_lookup_elem(&uplinks, &ifindex);
}

/**
 * device_neighbour() - the endpoint that a device may ask for, if there is one
 * @dev: the device that asks
 * @ifindex: its index
 * @addr: the address asked for
 *
 * Not the device's own address, so that a probe for it stays unanswered.
 */
static __always_inline struct endpoint *device_neighbour(const struct device *dev, __u32 ifindex,
							 const struct address *addr)
{
	struct endpoint *ep = endpoint_lookup(addr);
	bool found = false;

	if (!ep || ep->ifindex == ifindex || !ep->network)
		return NULL;
#pragma unroll
	for (int i = 0; i < DEVICE_NETWORKS; i++)
		found |= dev->networks[i] == ep->network;
	return found ? ep : NULL;
}

#endif
