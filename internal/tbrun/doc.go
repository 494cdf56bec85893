// SPDX-License-Identifier: Apache-2.0

// Package tbrun lets a program use helpers that were written for tests: it is a
// [testing.TB] outside of go test.
package tbrun
