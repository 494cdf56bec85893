// SPDX-License-Identifier: Apache-2.0

// Package archtest holds the tests that keep the shape of the repository:
// who may import whom, and that every package and C header says what it is for.
package archtest
