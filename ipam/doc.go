// SPDX-License-Identifier: Apache-2.0

// Package ipam leases addresses in-process with the configuration, the rules
// and the files of the host-local IPAM plugin.
//
// A [Pool] is one network's configuration. Its leases live in the directory
// <dataDir>/<network name>, in host-local's format, so that host-local and this
// package can work in one directory at the same time, and a node can change
// from one to the other and back while containers run:
//
//	10.88.0.2            a lease: one file per address, "<container id>\r\n<ifname>"
//	last_reserved_ip.0   the last address leased from range set 0 (round robin)
//	lock                 flock(2), held by whoever reads or writes the directory
//
// host-local reads every lease file for each command. To do without that, this
// package keeps a directory of its own beside the leases:
//
//	.zipline/owners/     a symbolic link per lease, named after its owner
//	.zipline/state       the boot that the leases belong to, and the directory's stamp
//
// A lease's file says in an extended attribute for which node this package made
// it. [Stale] needs it, nothing else does.
//
// Deleting .zipline costs one scan, and at the next boot the certainty about which
// leases are older. host-local descends into it and reads a lease through its
// link, so its DEL removes both, and its ADD and CHECK are not disturbed.
//
// # Who holds a lease
//
// The content of the lease file alone says so. The index is believed only after
// the content was read, nothing is ever deleted by its address alone, and an
// empty file (a host-local that died between create and write) is no lease.
//
// # Crashes
//
// A lease appears with its content or not at all, and its index entry appears
// first. A process that is killed at any point leaves a directory in which an
// ADD can be repeated and a DEL finds everything. Nothing is fsynced: leases do
// not outlive the boot, because no network namespace does. Leases of an earlier
// boot are swept; see boot.go for how they are told apart.
package ipam
