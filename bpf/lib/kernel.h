/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_KERNEL_H
#define ZIPLINE_KERNEL_H

/*
 * What is used of the kernel's own structs. Only names and types of the
 * members matter: CO-RE finds where they are in the running kernel.
 */

#define __reloc __attribute__((preserve_access_index))

/* Has the running kernel this member? Known before the program is verified. */
#define kernel_has(field) __builtin_preserve_field_info(field, 2 /* BPF_FIELD_EXISTS */)

/* enum ip_conntrack_status */
#define IPS_SEEN_REPLY (1 << 1)
#define IPS_ASSURED (1 << 2)
#define IPS_CONFIRMED (1 << 3)
#define IPS_SEQ_ADJUST (1 << 6)
#define IPS_DYING (1 << 9)
#define IPS_OFFLOAD (1 << 14)

/* enum tcp_conntrack: states, and the rows of the timeouts */
#define TCP_CONNTRACK_SYN_RECV 2
#define TCP_CONNTRACK_ESTABLISHED 3
#define TCP_CONNTRACK_UNACK 13
#define TCP_CONNTRACK_TIMEOUT_MAX 14

/* struct ip_ct_tcp_state: flags */
#define IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED 0x10

/* enum udp_conntrack */
#define UDP_CT_UNREPLIED 0
#define UDP_CT_REPLIED 1
#define UDP_CT_MAX 2

/* enum nf_ct_ext_id */
#define NF_CT_EXT_HELPER 0

#define XFRM_POLICY_TYPES 6

union nf_inet_addr {
	__u32 all[4];
} __reloc;

union nf_conntrack_man_proto {
	__be16 all;
} __reloc;

struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
} __reloc;

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} __reloc u;
	} __reloc dst;
} __reloc;

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
} __reloc;

struct nf_ct_ext {
	__u8 offset[1];
} __reloc;

struct ip_ct_tcp_state {
	__u8 flags;
} __reloc;

struct ip_ct_tcp {
	struct ip_ct_tcp_state seen[2];
	__u8 state;
} __reloc;

union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
} __reloc;

struct nf_tcp_net {
	unsigned int timeouts[TCP_CONNTRACK_TIMEOUT_MAX];
} __reloc;

struct nf_udp_net {
	unsigned int timeouts[UDP_CT_MAX];
} __reloc;

struct nf_ip_net {
	struct nf_tcp_net tcp;
	struct nf_udp_net udp;
} __reloc;

struct netns_ct {
	struct nf_ip_net nf_ct_proto;
} __reloc;

/* The policies are numbers of one byte or four, less than 256: the first byte will do. */
struct netns_ipv4 {
	bool fib_has_custom_rules;
	__u8 sysctl_fib_multipath_hash_policy;
} __reloc;

struct netns_sysctl_ipv6 {
	__u8 multipath_hash_policy;
} __reloc;

struct netns_ipv6 {
	struct netns_sysctl_ipv6 sysctl;
	bool fib6_has_custom_rules;
} __reloc;

struct netns_xfrm {
	unsigned int policy_count[XFRM_POLICY_TYPES];
} __reloc;

struct net {
	struct netns_ipv4 ipv4;
	struct netns_ipv6 ipv6;
	struct netns_ct ct;
	struct netns_xfrm xfrm;
} __reloc;

typedef struct {
	struct net *net;
} __reloc possible_net_t;

struct nf_conn {
	__u32 timeout;
	struct nf_conntrack_tuple_hash tuplehash[2];
	unsigned long status;
	possible_net_t ct_net;
	__u32 mark;
	struct nf_ct_ext *ext;
	union nf_conntrack_proto proto;
} __reloc;

#endif
