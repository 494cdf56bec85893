// SPDX-License-Identifier: Apache-2.0

// Command guest is the first process of the virtual machines of
// internal/kernels: it mounts what a machine has, says what the kernel can do,
// runs the test binaries one after the other, and restarts the machine, which
// ends it. What it says goes to the second serial port, the kernel's messages
// to the first.
package main
