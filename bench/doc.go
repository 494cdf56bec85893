// SPDX-License-Identifier: Apache-2.0

// Package bench measures what a container network costs. [Run] compares cases, ways
// to join containers, by what connections cost on every path and what attaching a
// container costs; [Attach] is the latter alone. [Tax] measures what the plugin
// under test costs everybody else, and [Observe] what it costs to be looked at.
//
// A machine's speed changes from one second to the next by more than what is to
// be measured, so no figure stands alone. Every round measures each subject once,
// in random order and in a node world of its own, and only the ratios within a
// round are judged: their median, with a bootstrap interval.
//
// In Attach the clock runs from before the fork to after the death of the plugin,
// inside of an agent process that lives in the node's namespaces. So entering
// namespaces, making containers and preparing input belongs to no figure.
//
// In the others two agents are the ends of every connection, each opening its
// socket in the namespace that it is told. Package load is what they do with it.
//
// A run gives samples; everything that a [Report] or [FlowReport] says is computed
// from them, and they can be written out whole.
package bench
