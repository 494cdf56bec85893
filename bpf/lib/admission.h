/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_ADMISSION_H
#define ZIPLINE_ADMISSION_H

/*
 * What is carried meets no rule. So each direction of a flow has to go through
 * the stack again and again, and is carried while a packet of it has lately come
 * out there. The conntrack entry itself remembers that.
 */

/*
 * How long a direction of a flow may stay away from the stack, in seconds: a
 * new rule meets an old flow within twice that.
 */
#define CHECK_IN_SECONDS 2

/* The two bits of an entry's expiry that say which directions are admitted. */
#define ADMITTED_SHIFT 2
#define ADMITTED_CELL 16 /* jiffies; the next such boundary and the bits fit in */

/*
 * What a program at ingress tells to_device about a packet that it leaves to
 * the stack: skb->tc_index = ADMIT | directions to admit. It is cleared on
 * arrival, so nobody else can say it.
 */
#define ADMIT 0x7a40
#define ADMIT_DIRECTIONS 3
#define ADMIT_REPLY 2

static __always_inline __u32 conntrack_established(const struct nf_conn *ct)
{
	return ct->ct_net.net->ct.nf_ct_proto.tcp.timeouts[TCP_CONNTRACK_ESTABLISHED];
}

/**
 * conntrack_lifetime() - the timeout that conntrack gave an entry that has an answer
 * @ct: the entry
 * @protocol: IPPROTO_TCP or IPPROTO_UDP
 *
 * Each entry has exactly one: a young UDP flow (assured together with its first
 * long timeout), and TCP data that nobody acknowledges (nf_conntrack_tcp_packet),
 * have a shorter one. An entry to which conntrack gave yet another one (a peer
 * with window 0) does not come out as admitted, which is right as well.
 *
 * Return: jiffies
 */
static __always_inline __u32 conntrack_lifetime(const struct nf_conn *ct, __u8 protocol)
{
	const struct nf_ip_net *proto = &ct->ct_net.net->ct.nf_ct_proto;
	__u32 full, reduced;

	if (protocol != IPPROTO_TCP)
		return ct->status & IPS_ASSURED ? proto->udp.timeouts[UDP_CT_REPLIED] :
						  proto->udp.timeouts[UDP_CT_UNREPLIED];
	if (ct->proto.tcp.state == TCP_CONNTRACK_SYN_RECV)
		return proto->tcp.timeouts[TCP_CONNTRACK_SYN_RECV];
	full = conntrack_established(ct);
	reduced = proto->tcp.timeouts[TCP_CONNTRACK_UNACK];
	if (reduced < full &&
	    (ct->proto.tcp.seen[0].flags | ct->proto.tcp.seen[1].flags) & IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED)
		return reduced;
	return full;
}

/**
 * admission_lifetime() - the timeout above which an admitted entry's expiry lies
 * @ct: the entry
 * @protocol: IPPROTO_TCP or IPPROTO_UDP
 * @directions: that are admitted
 *
 * Of a carried TCP flow conntrack misses the acknowledgements, and may take its
 * data for unacknowledged for ever. Packets that arrive both ways say better.
 *
 * Return: jiffies
 */
static __always_inline __u32 admission_lifetime(const struct nf_conn *ct, __u8 protocol, __u32 directions)
{
	if (protocol == IPPROTO_TCP && directions == ADMIT_DIRECTIONS)
		return conntrack_established(ct);
	return conntrack_lifetime(ct, protocol);
}

/**
 * conntrack_admitted() - the directions of which packets came through the whole stack lately
 * @ct: the entry
 * @protocol: IPPROTO_TCP or IPPROTO_UDP
 *
 * The entry's own expiry holds the answer. conntrack sets it to now + T when a
 * packet comes in, before any filter has seen the packet. to_device, which
 * sees what came through, raises it above that (conntrack_admit). So an expiry
 * further away than T is to_device's, and one that is not says that the flow
 * has to check in. With that no packet's journey has to be remembered anywhere
 * else, and no entry can expire while its flow is carried.
 *
 * Return: bit 0 for the original direction, bit 1 for the reply's
 */
static __always_inline __u32 conntrack_admitted(const struct nf_conn *ct, __u8 protocol)
{
	__u32 expiry = ct->timeout, directions = (expiry >> ADMITTED_SHIFT) & ADMIT_DIRECTIONS;
	__s32 over = expiry - (__u32)bpf_jiffies64() - admission_lifetime(ct, protocol, directions);

	if (over <= 0 || over > (__s32)(CHECK_IN_SECONDS * tick_hz + ADMITTED_CELL))
		return 0;
	return directions;
}

/* How long ago conntrack gave the entry its timeout, in jiffies; senseless where it was somebody else. */
static __always_inline __s32 conntrack_spent(const struct nf_conn *ct, __u8 protocol)
{
	return (__u32)bpf_jiffies64() + conntrack_lifetime(ct, protocol) - ct->timeout;
}

/**
 * conntrack_admit() - remember that packets of these directions came through
 * @ct: the entry
 * @protocol: IPPROTO_TCP or IPPROTO_UDP
 * @directions: as conntrack_admitted() returns them
 *
 * What is admitted now was admitted after this packet had come in, since its
 * own coming in took away what was before: packets of both directions are on
 * their way through the stack at once, and neither may undo the other.
 *
 * Conntrack has given the entry its timeout less than a second ago. One with
 * another time left has a timeout policy of its own or a fixed timeout: it is
 * left alone, and the flow in the stack.
 *
 * Return: negative reason
 */
static __always_inline int conntrack_admit(struct nf_conn *ct, __u8 protocol, __u32 directions)
{
	__u32 now = bpf_jiffies64(), meanwhile = conntrack_admitted(ct, protocol), lifetime, expiry;
	__s32 spent = conntrack_spent(ct, protocol);

	if (!meanwhile && (spent < 0 || spent >= (__s32)tick_hz))
		return -REASON_NEXT_TIMEOUT;
	directions |= meanwhile;
	lifetime = admission_lifetime(ct, protocol, directions);
	/* msecs_to_jiffies takes what has the upper bit for "for ever". */
	if ((__u64)(lifetime + 2 * CHECK_IN_SECONDS * tick_hz) * 1000 / tick_hz > 0x7fffffff)
		return -REASON_NEXT_TIMEOUT;
	expiry = now + lifetime + CHECK_IN_SECONDS * tick_hz;
	/* The middle of the cell: a tick between here and the helper's own look at the clock changes nothing. */
	expiry = (expiry & ~(ADMITTED_CELL - 1)) | directions << ADMITTED_SHIFT | 2;
	if (bpf_ct_change_timeout(ct, (__u64)(expiry - now) * 1000 / tick_hz))
		return -REASON_NEXT_TIMEOUT;
	if (((ct->timeout ^ expiry) >> ADMITTED_SHIFT) & ADMIT_DIRECTIONS) {
		/* This CPU was stopped in between (a guest's can be): other directions must not pass for admitted. */
		bpf_ct_change_timeout(ct, (__u64)lifetime * 1000 / tick_hz);
		return -REASON_NEXT_TIMEOUT;
	}
	return -REASON_NEXT_ADMITTED;
}

/**
 * conntrack_accept() - of which directions is this packet word that they come through?
 * @ct: its entry
 * @pkt: the packet, as it leaves
 * @reply: it is of the reply's direction
 * @directions: that the program at ingress asked for
 *
 * Of a connection that is not established yet, the SYN-ACK stands for the
 * reply's direction: with the ACK that follows, both have come through. Only the
 * first one, for conntrack gives the entry no new timeout for those that are sent
 * again (after a second or later), and neither do we.
 *
 * Return: bits as of conntrack_admitted(), or a negative reason
 */
static __always_inline int conntrack_accept(const struct nf_conn *ct, const struct packet *pkt, bool reply,
					    __u32 directions)
{
	int ret = conntrack_carried(ct, pkt);

	if (!ret)
		return directions;
	if (ret == -REASON_NEXT_TCP_FLAGS && reply && tcp_answers(pkt->tcp_flags) && conntrack_answered(ct) &&
	    !conntrack_admitted(ct, IPPROTO_TCP) && 2 * conntrack_spent(ct, IPPROTO_TCP) < (__s32)tick_hz)
		return directions & ADMIT_REPLY;
	return ret;
}

/**
 * conntrack_observe() - admit the directions that the program at ingress asked for
 * @skb: a packet that came through the stack, translated by it
 * @pkt: its tuple
 * @v4: IPv4, else IPv6; a constant
 * @directions: to admit
 *
 * Return: negative reason
 */
static __always_inline int conntrack_observe(struct __sk_buff *skb, const struct packet *pkt, bool v4,
					     __u32 directions)
{
	struct bpf_ct_opts opts = {};
	struct nf_conn *ct;
	int ret;

	if (!have_conntrack)
		return -REASON_NEXT_UNTRACKED;
	ct = conntrack_lookup(skb, pkt, v4, true, &opts);
	if (!ct)
		return -REASON_NEXT_UNTRACKED;
	/* The answer to a reply is of the original direction. */
	ret = conntrack_accept(ct, pkt, !opts.dir, directions);
	if (ret >= 0)
		ret = conntrack_admit(ct, pkt->protocol, ret);
	bpf_ct_release(ct);
	return ret;
}

#endif
