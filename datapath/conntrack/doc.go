// SPDX-License-Identifier: Apache-2.0

// Package conntrack deletes the connection tracking entries of an address that
// is given back: a new holder of the address must not inherit flows, least of
// all UDP ones, which no handshake begins anew.
package conntrack
