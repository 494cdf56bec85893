// SPDX-License-Identifier: Apache-2.0

// Package testrig is a private world to attach containers in: a node, a host
// outside of it, and containers, each a network namespace.
//
//	outside --- node === container, container, ...
//	192.0.2.2   192.0.2.1     (attached by the CNI plugin under test)
//	198.51.100.10 (lo)
//
// The node has a mount namespace of its own, with private /run, /sys,
// /sys/fs/bpf and /var/lib/cni, so that the programs executed in it find a fresh
// machine. The outside host has no route to any container subnet: a packet that
// leaves the node with a container's address can be seen there, never answered.
//
// Nothing of a world has a name outside of it. Its namespaces are held by file
// descriptors of the test process only and vanish with that process, however it
// ends. What a plugin that is killed with it may leave is the machine's switch for
// grace periods: the next process puts that back.
//
// Functions that take a testing.TB fail the test when the rig itself breaks; what a
// test may expect to go wrong is returned as an error.
package testrig
