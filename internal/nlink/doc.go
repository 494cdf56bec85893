// SPDX-License-Identifier: Apache-2.0

// Package nlink holds the few rtnetlink requests that
// github.com/vishvananda/netlink cannot express: several changes of a device
// in one message, and route dumps that the kernel filters and that stop early.
//
// Everything here acts on the network namespace of the calling thread.
package nlink
