// SPDX-License-Identifier: Apache-2.0

// Package load is one end of a connection: it makes packets go back and forth
// and measures how many did, and what the machine spent on them.
//
// It must never be the limit of what it measures. So an end runs on a thread of
// its own with blocking sockets, and its system calls are raw ones: the Go
// scheduler learns nothing of them and takes no part. A process that calls
// [End.Run] must collect no garbage meanwhile, since a collection waits for every
// thread, and has [Env] in its environment.
package load
