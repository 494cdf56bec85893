// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the eBPF programs of zipline, in C, and the Go code that is
// generated from them.
//
// There is one object file with one program per hook: from_endpoint runs on
// everything that a container sends (TC ingress of its host veth), from_uplink on
// what comes from outside (TC ingress of uplinks), and to_device sees what came
// through the stack (TC egress of both). The programs follow one grammar: inner functions return 0 ("no opinion, go on") or a
// negative [Reason], and a program's single exit counts the reason and turns it
// into a verdict. So every packet has a reason, and every reason a counter.
//
//	zipline.c      the programs
//	lib/           one header per topic
//	headers/       vendored libbpf headers
//
// The generated files are committed: building zipline needs no compiler for C.
// Run `go generate ./bpf` after a change of anything in C; the result depends on
// nothing but clang-14 and the version of bpf2go in go.mod.
//
// The tests run the programs on packets with BPF_PROG_TEST_RUN and compare every
// byte of what comes out; `make coverage` says which lines of the C they run.
//
// This package only describes; package loader loads, pins and attaches.
package bpf
