// SPDX-License-Identifier: Apache-2.0

// Package nlink holds the few rtnetlink requests that
// github.com/vishvananda/netlink cannot express: several changes of a device
// in one message, route dumps that the kernel filters and that stop early, and a
// deletion that does not wait for memory to be freed.
//
// Everything here acts on the network namespace of the calling thread.
package nlink
