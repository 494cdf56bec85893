// SPDX-License-Identifier: Apache-2.0

package bench

import "encoding/json"

// Kind says how the containers of a [Case] are joined.
type Kind string

// The kinds.
const (
	// KindLoopback has both ends in one namespace.
	KindLoopback Kind = "loopback"
	// KindWire joins two namespaces by a bare veth pair.
	KindWire Kind = "wire"
	// KindPlugin has a CNI plugin attach them.
	KindPlugin Kind = "plugin"
)

// Case is a way to join containers that a run compares with others. It is what a
// case file holds.
type Case struct {
	Name Subject `json:"name"`
	// Title is one line for a reader of the report.
	Title string `json:"title"`
	Kind  Kind   `json:"kind"`
	// Network is the configuration list that the containers are attached by, as a
	// runtime reads it from a file. The plugins are found by their types.
	Network json.RawMessage `json:"network,omitempty"`
	// BridgeNetfilter is the value of net.bridge.bridge-nf-call-iptables in the node.
	BridgeNetfilter bool `json:"bridgeNetfilter,omitempty"`
	// Carried says who has to carry the packets of an established flow: "ebpf",
	// "kernel", or empty where nobody is asked.
	Carried string `json:"carried,omitempty"`
	// Paths, Workloads and Connections that the case takes part in; empty means all.
	Paths       []Path     `json:"paths,omitempty"`
	Workloads   []Workload `json:"workloads,omitempty"`
	Connections []int      `json:"connections,omitempty"`
}
