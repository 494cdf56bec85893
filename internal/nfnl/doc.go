// SPDX-License-Identifier: Apache-2.0

// Package nfnl is a blocking netlink socket for netfilter (nf_tables and
// conntrack). Messages and attributes are those of github.com/mdlayher/netlink;
// its socket is not used, because it starts a goroutine for every read: in a
// program whose main goroutine is locked to its thread, as a CNI plugin's is,
// each of them costs two thread switches (50 µs per message where this socket
// takes 2 µs).
//
// # Closing costs
//
// When a netfilter socket is closed the kernel waits until the objects that
// nf_tables transactions of the namespace deleted are freed, that is for an RCU
// grace period (about 10 ms; nft_rcv_nl_event in nf_tables_api.c). It does so for
// every netfilter socket, also for one that deleted nothing, and at the exit of
// a process. So delete early and close late: what the program does in between
// is free.
package nfnl
