// SPDX-License-Identifier: Apache-2.0

// Package testutil says what a test needs from the machine it runs on.
//
// A missing need skips the test on a developer's laptop and fails it where the
// environment variable CI is set: a test that is skipped everywhere proves
// nothing, and a green tick must not hide it.
package testutil
