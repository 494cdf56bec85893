// SPDX-License-Identifier: Apache-2.0

// Package datapath makes and removes, reads, checks and repairs the node's end
// of an attachment: the veth pair, the addresses, the routes and neighbours by
// which the kernel alone delivers every packet, the entries of the nftables
// ruleset, and the eBPF programs that shorten the way.
//
// The kernel decides, eBPF accelerates: an endpoint works with every program
// detached. All state is found again from the attachment's name (see
// [Attachment.Device]); nothing is remembered between two calls.
//
// Every function acts on the network namespace of the calling thread, which
// is the node's; callers lock their goroutine to its thread.
package datapath
