// SPDX-License-Identifier: Apache-2.0

// Package cni speaks the Container Network Interface: it reads the
// configuration of the bridge plugin and zipline's own keys, carries out the
// verbs ADD, DEL, CHECK, GC and STATUS with package datapath and an address
// manager, and answers with results and error codes of the specification
// (versions 0.1.0 to 1.1.0).
//
// It decides nothing about packets. CNI error codes are chosen in errors.go
// and nowhere else.
package cni
