// SPDX-License-Identifier: Apache-2.0

// Package flow lists the flows that conntrack has of the node's endpoints, and
// says of each direction whether eBPF carries it past the stack and, if not, why.
//
// The answer is the programs' own: a copy of the one that the direction's next
// packet would meet is run on such a packet (see [loader.Judge]), so it holds
// with everything that the C looks at: the entry's status and helper, the
// directions that are admitted at this moment (to the tick, where ctnetlink
// tells seconds), marks, routes, neighbours, uplinks.
//
// Two containers that talk to each other directly, past conntrack, have no entry
// and are not in the list.
package flow
