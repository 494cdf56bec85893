// SPDX-License-Identifier: Apache-2.0

// Package coverage finds out which lines of an eBPF program's C ran.
//
// [Instrument] rewrites a program before it is loaded: each basic block, and
// each way out of a conditional jump, first sets a byte of its own in a map.
// [NewReport] reads these bytes with the line information that the compiler left
// in the object.
//
// A line counts as covered when any of its inlined copies ran. The compiler
// moves code: `return -REASON_X` is often loaded before the condition is
// tested, so that the line runs whatever the condition says. That is why a
// [Report] also has the conditions: a line with a conditional jump is only
// covered whole when each of its jumps went both ways in some copy.
//
// A probe needs one register. The verifier knows at each place which registers
// are never read again, and so does this package: it takes one of those. Where
// there is none it saves one on the stack, below what the program uses.
package coverage
