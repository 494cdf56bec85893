/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_TYPES_H
#define ZIPLINE_TYPES_H

/*
 * The few kernel types that the programs use. Wire formats and the UAPI
 * structs below are fixed for ever, so they are written down here instead of
 * coming from whatever kernel headers the build machine has: the object then
 * depends on the compiler alone.
 */

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u16 __sum16;
typedef __u32 __wsum;

#define NULL ((void *)0)

typedef _Bool bool;
#define true 1
#define false 0

#define __packed __attribute__((packed))

/* enum bpf_map_type and map flags (linux/bpf.h) */
#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PROG_ARRAY 3
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_ANY 0
#define BPF_F_NO_PREALLOC 1
#define BPF_F_CURRENT_NETNS (-1)

/* linux/pkt_cls.h */
#define TC_ACT_UNSPEC (-1) /* TCX calls it TCX_NEXT */
#define TC_ACT_SHOT 2
#define TC_ACT_REDIRECT 7

/* linux/if_packet.h: to whom the frame is addressed, as seen by the device */
#define PACKET_HOST 0
#define PACKET_BROADCAST 1
#define PACKET_MULTICAST 2
#define PACKET_OTHERHOST 3

#define ETH_ALEN 6
#define ETH_HLEN 14
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_8021Q 0x8100
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021AD 0x88a8

#define VLAN_VID_MASK 0x0fff

#define IPPROTO_HOPOPTS 0
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_ICMPV6 58
#define IPPROTO_DSTOPTS 60

#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

#define ENOENT 2

struct ethhdr {
	__u8 h_dest[ETH_ALEN];
	__u8 h_source[ETH_ALEN];
	__be16 h_proto;
} __packed;

struct iphdr {
	__u8 ihl : 4, version : 4; /* little endian only, as is the object */
	__u8 tos;
	__be16 tot_len; /* never trusted: 0 in BIG TCP packets */
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__sum16 check;
	__be32 saddr;
	__be32 daddr;
};

struct in6_addr {
	__be32 w[4];
};

struct ipv6hdr {
	__be32 flow; /* version, traffic class, flow label */
	__be16 payload_len; /* never trusted: 0 in BIG TCP packets */
	__u8 nexthdr;
	__u8 hop_limit;
	struct in6_addr saddr;
	struct in6_addr daddr;
};

/* The ports, at the same place in TCP and UDP. */
struct ports {
	__be16 source;
	__be16 dest;
};

/* The bytes of TCP's header after ports and sequence numbers. */
struct tcp_middle {
	__u8 doff; /* in words: the upper half */
	__u8 flags;
};

#define TCP_MIDDLE_OFFSET 12
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_URG 0x20
#define TCP_TURN (TCP_SYN | TCP_FIN | TCP_RST) /* opens or ends a connection */
#define TCP_CHECK_OFFSET 16
#define UDP_CHECK_OFFSET 6
#define TCP_HLEN_MIN 20
#define UDP_HLEN 8

/* The context of a tc program (linux/bpf.h). */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

/* linux/bpf.h: bpf_l4_csum_replace */
#define BPF_F_PSEUDO_HDR (1 << 4)
#define BPF_F_MARK_MANGLED_0 (1 << 5)
#define BPF_F_IPV6 (1 << 7) /* 6.16, and backports */

/* linux/bpf.h: return codes of bpf_fib_lookup */
#define BPF_FIB_LKUP_RET_SUCCESS 0
#define BPF_FIB_LKUP_RET_NO_NEIGH 7
#define BPF_FIB_LKUP_RET_FRAG_NEEDED 8

/* linux/socket.h */
#define AF_INET 2
#define AF_INET6 10

#define IPV6_FLOWINFO_MASK 0x0fffffff

/* The question and the answer of bpf_fib_lookup (linux/bpf.h). */
struct bpf_fib_lookup {
	__u8 family;
	__u8 l4_protocol;
	__be16 sport;
	__be16 dport;
	__u16 tot_len; /* answer: the MTU */
	__u32 ifindex;
	union {
		__u8 tos;
		__be32 flowinfo;
	};
	__be32 src[4];
	__be32 dst[4];
	__be16 h_vlan_proto;
	__be16 h_vlan_TCI;
	__u8 smac[ETH_ALEN];
	__u8 dmac[ETH_ALEN];
};

/* The tuple of bpf_skb_ct_lookup (linux/bpf.h). */
struct bpf_sock_tuple {
	union {
		struct {
			__be32 saddr;
			__be32 daddr;
			__be16 sport;
			__be16 dport;
		} ipv4;
		struct {
			__be32 saddr[4];
			__be32 daddr[4];
			__be16 sport;
			__be16 dport;
		} ipv6;
	};
};

#endif
