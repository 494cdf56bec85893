/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef ZIPLINE_ANSWER_H
#define ZIPLINE_ANSWER_H

/*
 * To ask conntrack, or the kernel for a route and its neighbour, costs as much as
 * all else that is done to a packet. So an answer holds for the tick in which it
 * was given, on the CPU that asked: packets that come within one tick, the unit
 * in which the kernel itself counts these times, are judged as if they had come
 * at once, and a change is followed within a tick (1 to 10 ms, more
 * only where the kernel's own clock stands still, as in a virtual machine that is
 * stopped). It is no state: without it the next packet asks.
 */

#define ANSWERS 512
#define ANSWERS_SHIFT 23 /* of a hash of 32 bits */

/* For questions and answers, which are compared and copied by words. */
#define ANSWER_ALIGNED __attribute__((aligned(8)))

/* What is asked. */
enum about {
	ABOUT_FLOW = 1, /* what does conntrack make of the packet? */
	ABOUT_WAY = 2, /* by which device and to which MAC does it leave? */
	ABOUT_ARRIVAL = 3, /* may it come in by this device? */
};

/**
 * struct question - what an answer depends on
 * @saddr: source address before it is translated; of an arrival the container's
 * @daddr: destination address; of a way as it was translated; of an arrival the
 *         remote one
 * @ports: of a flow; else 0
 * @traffic: of a way, IPv4: the TOS; IPv6: the first word of the header; else 0
 * @ifindex: where the packet comes in
 * @protocol: IPPROTO_TCP or IPPROTO_UDP: next hops of one IPv6 route are chosen by it
 * @about: enum about
 */
struct question {
	struct address saddr;
	struct address daddr;
	struct ports ports;
	__be32 traffic;
	__u32 ifindex;
	__u16 protocol;
	__u16 about;
} ANSWER_ALIGNED;

/* Questions and answers are in words of 8 bytes. */
#define QUESTION_WORDS 6
#define ANSWER_WORDS 6
_Static_assert(sizeof(struct question) == QUESTION_WORDS * sizeof(__u64), "question_equal compares all of it");

/**
 * struct answer - what holds for a tick
 * @tick: in which the question was asked, in jiffies
 * @question: which
 * @said: the answer: struct flow, struct way or nothing
 * @sequence: odd while somebody writes
 */
struct answer {
	__u64 tick;
	struct question question;
	__u64 said[ANSWER_WORDS];
	__u32 sequence;
};

/* Not pinned: each load has its own. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ANSWERS);
	__type(key, __u32);
	__type(value, struct answer);
} answers SEC(".maps");

/* The place of an answer. Questions that meet there are asked again, nothing else. */
static __always_inline struct answer *answer_place(const struct question *question)
{
	const struct address *s = &question->saddr, *d = &question->daddr;
	__u32 ports, hash;

	__builtin_memcpy(&ports, &question->ports, sizeof(ports));
	hash = s->w[3] ^ d->w[3] ^ d->w[2] ^ d->w[1] ^ ports ^ question->ifindex;
	hash = hash * 0x9e3779b1 >> ANSWERS_SHIFT;
	return bpf_map_lookup_elem(&answers, &hash);
}

static __always_inline bool question_equal(const struct question *a, const struct question *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]) | (x[5] ^ y[5]));
}

/**
 * answer_known() - the answer that was given in this tick
 * @question: which
 * @said: set to the answer
 * @size: of it, in bytes; a constant
 *
 * A real-time kernel may run other packets on this CPU in between, which keep
 * answers at the same place: the sequence number tells of one, and the question of
 * two that are in each other's way.
 *
 * Return: whether there is one
 */
static __always_inline bool answer_known(const struct question *question, void *said, __u32 size)
{
	struct answer *answer = answer_place(question);
	__u32 sequence;

	if (!answer)
		return false;
	sequence = answer->sequence;
	barrier();
	if (answer->tick != bpf_jiffies64() || !question_equal(&answer->question, question))
		return false;
	__builtin_memcpy(said, answer->said, size);
	barrier();
	return !(sequence & 1) && answer->sequence == sequence && question_equal(&answer->question, question);
}

/* Keep an answer to a question that was asked while the tick was @tick. */
static __always_inline void answer_keep(const struct question *question, const void *said, __u32 size, __u64 tick)
{
	struct answer *answer = answer_place(question);
	__u32 sequence;

	if (!answer)
		return;
	sequence = answer->sequence;
	if (sequence & 1)
		return;
	answer->sequence = sequence + 1;
	barrier();
	answer->tick = tick;
	answer->question = *question;
	barrier();
	__builtin_memcpy(answer->said, said, size);
	barrier();
	answer->sequence = sequence + 2;
}

#endif
