// SPDX-License-Identifier: Apache-2.0

// Package report says what the samples of a run of the whole comparison mean: as a
// page of Markdown with plots, as the table of a README, and as the difference of
// two runs.
//
// Nothing of it measures. A [Report] is computed from [bench.Results] alone, and
// the same results always give the same page, down to the last byte of a plot.
//
// The rule of all figures is that a ratio is of pairs from the same round, that its
// interval is widened by what the run cannot tell from nothing (see [Noise]), and
// that a verdict is given only where the widened interval leaves 1 out. What each
// figure means to its reader is in docs/benchmark.md.
package report
