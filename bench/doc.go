// SPDX-License-Identifier: Apache-2.0

// Package bench measures what attaching a container costs, beside the reference
// bridge plugin in the same run.
//
// A machine's speed changes from one second to the next by more than what is to
// be measured, so no figure stands alone. Every round measures each subject once,
// in random order and in a node world of its own, and only the ratios within a
// round are judged: their median, with a bootstrap interval.
//
// The clock runs from before the fork to after the death of the plugin, inside of
// an agent process that lives in the node's namespaces. So entering namespaces,
// making containers and preparing input belongs to no figure.
//
// A run gives samples; everything that a [Report] says is computed from them, and
// they can be written out whole.
package bench
