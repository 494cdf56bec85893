// SPDX-License-Identifier: Apache-2.0

package bpf

// Digest identifies the embedded object file: the first 16 bytes of its SHA-256
// in hexadecimal. Two builds with the same digest load the same programs.
func Digest() string { return digest }
