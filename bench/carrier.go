// SPDX-License-Identifier: Apache-2.0

// Which programs a case's packets meet on each path.

package bench

import (
	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// proof returns what a case has to show in a cell, or nil.
func (c Carrier) proof(node *testrig.Node, in cell) *proof {
	switch {
	case c == "":
		return nil
	case c == CarrierKernel:
		return &proof{node, carriedByNone}
	case in.workload.fleeting() && (c != CarrierNeighbours || in.path != Local):
		return &proof{node, carriedByChance(metPerUnit(in))}
	default:
		return &proof{node, carriedBy(metPerUnit(in))}
	}
}

// fleeting says whether most packets belong to flows that are not established: the
// connections of TCP_CRR are over by then, and datagrams that nobody answers never
// come so far.
func (w Workload) fleeting() bool { return w == TCPCRR || w.Datagrams() }

// metPerUnit returns how many packets each program meets for a unit of a workload, at
// least. A transaction of TCP_CRR takes several each way.
func metPerUnit(in cell) map[bpf.Hook]int {
	there := map[bpf.Hook]int{bpf.HookEndpoint: 1}
	back := map[bpf.Hook]int{bpf.HookEndpoint: 1}
	switch in.path {
	case Outside:
		back = map[bpf.Hook]int{bpf.HookUplink: 1}
	case HostPort:
		there = map[bpf.Hook]int{bpf.HookUplink: 1}
	}
	if in.workload.Datagrams() {
		return there // nothing comes back
	}
	both := map[bpf.Hook]int{}
	for _, way := range []map[bpf.Hook]int{there, back} {
		for hook, packets := range way {
			both[hook] += packets
		}
	}
	return both
}
