// SPDX-License-Identifier: Apache-2.0

package bench

import "github.com/zipline-cni/zipline/bench/load"

// FlowSample is one measurement of a connection.
type FlowSample struct {
	Path     Path     `json:"path"`
	Workload Workload `json:"workload"`
	Subject  Subject  `json:"subject"`
	// Connections at a time.
	Connections int `json:"connections,omitempty"`
	// Endpoints on the network meanwhile, where a run varies them.
	Endpoints int `json:"endpoints,omitempty"`
	// Round numbers the rounds. Samples that differ in nothing but their subject
	// are a pair.
	Round   int     `json:"round"`
	Seconds float64 `json:"seconds"`
	// Units are transactions, bytes or datagrams that have arrived.
	Units uint64 `json:"units"`
	// Busy is the CPU time of the whole machine meanwhile, in seconds.
	Busy float64 `json:"busy"`
	// Threads is the CPU time of the two ends, from the connection's start to
	// its end, and Total the units of all that time.
	Threads float64 `json:"threads"`
	Total   uint64  `json:"total"`
	// User is the part of Threads that the ends have spent outside the kernel:
	// what the generator costs, which is no part of any way.
	User float64 `json:"user"`
	// Sent datagrams of those workloads that count datagrams, meanwhile.
	Sent uint64 `json:"sent,omitempty"`
	// Lost datagrams.
	Lost uint64 `json:"lost,omitempty"`
	// Latency of the transactions; nil where there are none.
	Latency *Latency `json:"latency,omitempty"`
	// Carried is the share of the packets that eBPF carried past the stack,
	// in the program that carried the smallest share; see [FlowSample].Invalid.
	Carried float64 `json:"carried"`
	// Invalid says why the sample does not count, as its packets have not gone
	// the way that it is about. Empty for one that counts.
	Invalid string `json:"invalid,omitempty"`
}

// Latency holds quantiles of the times that transactions took, in seconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
}

// take adds what was measured.
func (s *FlowSample) take(m load.Measurement) {
	s.Seconds, s.Units, s.Busy = m.Seconds, m.Units, m.Busy
	s.Threads, s.Total, s.User = m.Thread, m.Total, m.User
	s.Sent, s.Lost = m.Sent, m.Lost
	if m.Latency != (load.Latency{}) {
		s.Latency = &Latency{m.Latency.P50, m.Latency.P99, m.Latency.P999}
	}
}

// Rate returns the units per second.
func (s FlowSample) Rate() float64 { return float64(s.Units) / s.Seconds }

// Cost returns the CPU seconds of the whole machine per unit.
func (s FlowSample) Cost() float64 { return s.Busy / float64(s.Units) }

// Own returns the CPU seconds of the two ends per unit.
func (s FlowSample) Own() float64 { return s.Threads / float64(s.Total) }

// flowKey is a line of a report.
type flowKey struct {
	path     Path
	workload Workload
	subject  Subject
}

func (s FlowSample) key() flowKey { return flowKey{s.Path, s.Workload, s.Subject} }

// valid returns the samples of a line that count.
func valid(samples []FlowSample, key flowKey) []FlowSample {
	var found []FlowSample
	for _, s := range samples {
		if s.key() == key && s.Invalid == "" && s.Units > 0 {
			found = append(found, s)
		}
	}
	return found
}

// byRound returns a value of each sample with the round that makes it a pair.
func byRound(samples []FlowSample, value func(FlowSample) float64) []Keyed[int] {
	out := make([]Keyed[int], 0, len(samples))
	for _, s := range samples {
		out = append(out, Keyed[int]{s.Round, value(s)})
	}
	return out
}

// medianOf returns the median of a value of the samples.
func medianOf(samples []FlowSample, value func(FlowSample) float64) float64 {
	values := make([]float64, 0, len(samples))
	for _, s := range samples {
		values = append(values, value(s))
	}
	return Median(values)
}
