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

// Carrier says who has to carry the packets of a case past the stack. Where it is
// empty nobody is asked.
type Carrier string

// The carriers.
const (
	// CarrierKernel asks that eBPF carries no packet.
	CarrierKernel Carrier = "kernel"
	// CarrierEBPF asks that eBPF carries nearly all packets of flows that are
	// established.
	CarrierEBPF Carrier = "ebpf"
	// CarrierNeighbours is as [CarrierEBPF], and asks that between two containers
	// of a node that is so from the first packet of a flow on.
	CarrierNeighbours Carrier = "ebpf-neighbours"
)

// Case is a way to join containers that a run compares with others. It is what a
// case file holds; bench/cases/README.md is the format for users.
type Case struct {
	Name Subject `json:"name"`
	// Title is one line for a reader of the report.
	Title string `json:"title"`
	Kind  Kind   `json:"kind"`
	// Network is the configuration list that the containers are attached by, as a
	// runtime reads it from a file of /etc/cni/net.d. The plugins are found by
	// their types.
	Network json.RawMessage `json:"network,omitempty"`
	// PluginPath are the directories where they are looked for first. The plugin
	// under test and the reference plugins are found without.
	PluginPath []string `json:"pluginPath,omitempty"`
	// BridgeNetfilter is the value of net.bridge.bridge-nf-call-iptables in the node.
	BridgeNetfilter bool    `json:"bridgeNetfilter,omitempty"`
	Carried         Carrier `json:"carried,omitempty"`
	// Growth says that the case is also measured on a network that grows.
	Growth bool `json:"growth,omitempty"`
	// Paths, Workloads and Connections that the case takes part in; empty means all.
	Paths       []Path     `json:"paths,omitempty"`
	Workloads   []Workload `json:"workloads,omitempty"`
	Connections []int      `json:"connections,omitempty"`
}
