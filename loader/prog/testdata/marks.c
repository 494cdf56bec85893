//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * Programs to attach in tests. Each writes its letter behind those of the
 * programs before it, in the packet's mark, and leaves the packet to the next.
 * marks.o is built from it by buildMarks of prog_test.go.
 */

#define SEC(name) __attribute__((section(name), used))
#define NEXT -1

typedef unsigned char __u8;
typedef unsigned int __u32;

/* The beginning of the kernel's. */
struct __sk_buff {
	__u32 len, pkt_type, mark, queue_mapping, protocol;
	__u32 vlan_present, vlan_tci, vlan_proto, priority;
	__u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end;
};

#define MARKER(name, letter)                             \
	SEC("tc") int mark_##name(struct __sk_buff *skb) \
	{                                                \
		skb->mark = skb->mark << 4 | letter;     \
		return NEXT;                             \
	}

MARKER(a, 0xa)
MARKER(b, 0xb)
MARKER(c, 0xc)

SEC("tcx/ingress") int drop(struct __sk_buff *skb)
{
	return 2; /* TC_ACT_SHOT */
}

SEC("xdp") int wrong_kind(void *ctx)
{
	return 2;
}

SEC("nonsense") int no_kind(void *ctx)
{
	return 0;
}

/* Reads behind the packet, which the verifier refuses. */
SEC("tc") int refused(struct __sk_buff *skb)
{
	return *((volatile __u8 *)(long)skb->data + 100);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
