// SPDX-License-Identifier: Apache-2.0

// Package metrics makes Prometheus metrics of what a node's programs, maps,
// endpoints and leases say at one moment.
//
// Nothing is kept between two scrapes: what counts, counts in the kernel. So
// how long ADD and DEL took is not among them, as no process is there to
// remember it.
package metrics
