// SPDX-License-Identifier: Apache-2.0

// Package loader keeps the eBPF programs and maps of a node: it loads and pins
// them once, finds them again, attaches them to devices, replaces them by newer
// ones, and reads and writes the maps.
//
// A node is a network namespace. There is no daemon, so three places together
// say which set of programs and maps is the node's:
//
//	devices   every host veth carries from_endpoint, which uses all of the maps:
//	          they outlive every process and every mount, and decide in doubt
//	pins      under /sys/fs/bpf/zipline/<node>/v4: quick to open, and keep the set
//	          alive while no device has it; but a bpffs can be private to a mount
//	          namespace (`ip netns exec` has a new one for each call)
//	record    /run/zipline/<node>/programs: which programs were published last, and
//	          from which object file; a claim that is checked against the kernel
//
// [Open] takes the quick way when pins and record agree: no ELF file and no
// kernel BTF is parsed, nothing is loaded. Else it takes the node's lock
// exclusively, finds the set by its devices, the record or the pins, in this
// order, loads what is missing or outdated, and publishes it. The record is
// written last: whoever is killed before has published nothing.
//
// All functions work on the network namespace of the calling thread. A caller
// that has changed its thread's namespace holds runtime.LockOSThread.
package loader
