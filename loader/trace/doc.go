// SPDX-License-Identifier: Apache-2.0

// Package trace watches the programs at work: which packet met which verdict,
// for what reason, and as what it went on.
//
// The last act of each program is a jump to the tracer of its hook, if there is
// one (bpf/lib/verdict.h). A [Tracer] puts one there (bpf/trace.c). The kernel takes
// it out when the tracing process is gone, also where it was killed. So while
// nobody traces all that is left of it is a jump that is not taken.
package trace
