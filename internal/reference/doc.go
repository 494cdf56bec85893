// SPDX-License-Identifier: Apache-2.0

// Package reference builds the programs that tests and benchmarks execute: the
// reference CNI plugins at a pinned version, to compare with and to chain, and
// the plugin of this repository with its release flags.
//
// The reference plugins are built once per user from the Go module proxy and
// kept in the user's cache directory; nothing is ever installed on the machine.
package reference
