// SPDX-License-Identifier: Apache-2.0

// Package capture records what a device sends and gets, as pcapng.
//
// The device is the container's own, in its namespace: a packet that is delivered
// by bpf_redirect_peer appears there and nowhere on the node's side.
package capture
