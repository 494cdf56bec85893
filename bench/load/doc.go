// SPDX-License-Identifier: Apache-2.0

// Package load is the two ends of connections: it makes packets go back and forth
// and measures how many did, how long they took, and what the machine spent on them.
//
// It must never be the limit of what it measures. So an end runs on a thread of
// its own, and its system calls are raw ones: the Go scheduler learns nothing of
// them and takes no part. One thread serves all connections of an end, however many:
// threads would have the kernel switch between them for every packet, and that is
// no part of any way. A single connection is waited for by reading it.
//
// What an end spends outside the kernel is in [Measurement].User: 3 to 7 % of its
// CPU time on the machine where this was written, whatever it does. The rest of
// what it is not to be blamed for shows on the loopback device, which is the
// shortest way there is.
//
// A process that calls [End.Connect] or [End.Serve] must collect no garbage
// meanwhile, since a collection waits for every thread, and has [Env] in its
// environment.
package load
