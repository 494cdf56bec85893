// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"io"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

var (
	packets = prometheus.NewDesc("zipline_packets_total",
		"Packets that a program decided about, since the maps were made; a GSO packet counts once.", []string{"network", "hook", "verdict", "reason"}, nil)
	bytes = prometheus.NewDesc("zipline_bytes_total",
		"Bytes of the packets that a program decided about, with the Ethernet header.", []string{"network", "hook", "verdict", "reason"}, nil)
	mapEntries = prometheus.NewDesc("zipline_map_entries",
		"Entries of an eBPF map; of an array all are there from the start.", []string{"map"}, nil)
	mapMaxEntries = prometheus.NewDesc("zipline_map_max_entries",
		"How many entries an eBPF map can have.", []string{"map"}, nil)
	mapBytes = prometheus.NewDesc("zipline_map_memory_bytes",
		"Memory that an eBPF map is accounted with.", []string{"map"}, nil)
	leases = prometheus.NewDesc("zipline_leases",
		"Addresses of a network by state: held by an endpoint, stale, pending, unknown (another plugin's), free (of the IPv4 subnets in use).",
		[]string{"network", "family", "state"}, nil)
	endpoints = prometheus.NewDesc("zipline_endpoints",
		"Endpoints on this node.", []string{"network"}, nil)
	uplinks = prometheus.NewDesc("zipline_uplinks",
		"Devices by which established flows leave past the stack.", nil, nil)
	info = prometheus.NewDesc("zipline_info",
		"What is loaded on this node: release of the observer, tier of the programs (none: nothing is loaded).", []string{"version", "tier"}, nil)
	buildInfo = prometheus.NewDesc("zipline_build_info",
		"How the observer was built.", []string{"version", "goversion", "goarch"}, nil)
)

// Describe implements [prometheus.Collector].
func (s *Sample) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{packets, bytes, mapEntries, mapMaxEntries, mapBytes, leases, endpoints, uplinks, info, buildInfo} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (s *Sample) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		send(d, prometheus.GaugeValue, value, labels...)
	}
	for _, c := range s.Counters {
		labels := []string{c.Network, c.Hook.String(), c.Reason.Verdict().String(), c.Reason.Token()}
		send(packets, prometheus.CounterValue, float64(c.Packets), labels...)
		send(bytes, prometheus.CounterValue, float64(c.Bytes), labels...)
	}
	for _, m := range s.Maps {
		gauge(mapEntries, float64(m.Entries), m.Name)
		gauge(mapMaxEntries, float64(m.MaxEntries), m.Name)
		gauge(mapBytes, float64(m.Bytes), m.Name)
	}
	for _, l := range s.Leases {
		gauge(leases, float64(l.Count), l.Network, l.Family, l.State)
	}
	for network, n := range s.Endpoints {
		gauge(endpoints, float64(n), network)
	}
	gauge(uplinks, float64(len(s.Uplinks)))
	gauge(info, 1, s.Release, s.Tier)
	gauge(buildInfo, 1, s.Release, runtime.Version(), runtime.GOARCH)
}

// Registry returns a registry with nothing but the sample.
func (s *Sample) Registry() (*prometheus.Registry, error) {
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(s); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return r, nil
}

// WriteText writes the sample in Prometheus's text format.
func (s *Sample) WriteText(w io.Writer) error {
	r, err := s.Registry()
	if err != nil {
		return err
	}
	families, err := r.Gather()
	if err != nil {
		return fmt.Errorf("gather metrics: %w", err)
	}
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(w, family); err != nil {
			return fmt.Errorf("write metrics: %w", err)
		}
	}
	return nil
}
