// SPDX-License-Identifier: Apache-2.0

// Package doctor looks at everything on a node that zipline stands on or gets
// along with, and says what it found, what follows from it and how to mend it.
//
// What the kernel can do is found out by trying, never by its version: a program
// is loaded and thrown away, the whole ruleset is made in a network namespace
// that ends with the attempt. Nothing else is changed, but that the kernel loads
// modules on the way (nf_conntrack, nf_tables), as it does at the first ADD.
//
// [Run] acts on the network namespace of the calling thread, which is the
// node's; callers lock their goroutine to its thread.
package doctor
