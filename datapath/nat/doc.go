// SPDX-License-Identifier: Apache-2.0

// Package nat holds zipline's nftables table, inet zipline: the source check of
// packets that come from endpoints, the translation of packets that leave them,
// and the isolation of endpoints. testdata/*.nft show the whole table as nft
// prints it.
//
// Chains and rules are static. What an endpoint adds are elements of sets and
// maps, so a packet crosses the same few rules on a node with ten endpoints and
// with five thousand. Nothing but this package touches the table, and this
// package touches no other.
//
//	source4, source6    addresses of endpoints whose packets are translated
//	random4, random6    those of them with fully random source ports
//	snat4, snat6        those of them with a source address of their own
//	exempt4, exempt6    (source subnet . destination) that is left alone
//	isolated4, 6        addresses of endpoints that do not reach each other
//	segment4, segment6  (subnet . the same subnet) in which they do not
//	address4, address6  (device . address of its own), unless held to one MAC
//	macspoofchk, mac    devices that are held to one MAC, and (device . MAC)
//
// Sets, not verdict maps: a commit that adds an element with a goto has the
// kernel validate the chains of every element of the map (18 µs at 10 elements,
// 394 µs at 5,000 on Linux 6.18), one that adds a plain element does not.
//
// # Ownership
//
// Every element of an endpoint names its owner in its comment, the device
// first. An element is replaced or removed only after its comment was read, and
// the batch that does so carries the generation number of the ruleset that the
// comment was read in. The kernel refuses the batch when anything changed since
// (ERESTART), so "read, compare, delete" is one atomic step. Element comments
// take the place of a record: nothing else remembers them.
//
// Exempt prefixes and segments belong to a subnet, not to an endpoint: nft has no
// way to look up a pair of (network of the source, destination) but by the
// source's prefix. Two networks on one node with overlapping subnets therefore
// share their exempt destinations where the subnets overlap, and their isolated
// endpoints are neighbours there.
//
// # Concurrency
//
// [Ruleset.Add], [Ruleset.Remove], [Ruleset.RemoveNetwork] and
// [Ruleset.Collect] need no lock. [Ruleset.Install] may run beside them; two
// Installs at once do the work twice but harm nothing. No one of them is misled
// by a transaction that the kernel has prepared and not committed.
package nat
