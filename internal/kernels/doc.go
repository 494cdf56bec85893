// SPDX-License-Identifier: Apache-2.0

// Command kernels runs the tests that depend on the kernel on other kernels
// than the machine's: those of Debian's cloud images, each in a virtual machine
// that qemu emulates in software.
//
//	go run ./internal/kernels [-run PATTERN] [-packages LIST] [SERIES...]
//
// A series is the beginning of a version, as 6.12 or 7; the newest kernel of it
// is taken that the configured mirror of Debian has in any suite. The machine
// has no disk and no network: an initramfs holds the kernel's network modules,
// the test binaries with their testdata, the plugins, and the programs that the
// tests execute, copied from this machine. Its first process is
// internal/kernels/guest.
//
// Kernels are kept in the user's cache directory; apt's own lists and caches
// are not touched.
package main
