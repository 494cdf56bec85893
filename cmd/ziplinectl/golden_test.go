// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s\n(go test -update writes it)", file, text, want)
	}
}

// The values of the tables below: one of each kind.
var (
	exampleEndpoints = []endpointJSON{
		{
			Network: "pods", ContainerID: "4f1c0b2d9e8a7766554433221100ffee", IfName: "eth0", Addresses: []string{"10.62.0.2", "fd00:62::2"},
			MAC: "52:e9:4d:54:39:81", Device: "zlzzxphwu5oivz7", Index: 7, HostMAC: "ce:00:4d:54:39:01", MTU: 1500, Up: true,
			Netns: netnsJSON{ID: 3, Inode: 4026532600, Path: "/run/netns/cni-1"}, Tier: "conntrack", Forwarding: "direct", SourceCheck: true,
			Programs: []attachedJSON{{"from_endpoint", 41, "tcx", "ingress", true}, {"to_device", 42, "tcx", "egress", true}},
			Received: &trafficJSON{4065, 67108864}, ReceivedByStack: trafficJSON{8, 600}, ReceivedByEBPF: &trafficJSON{4057, 67108264}, Sent: trafficJSON{1022, 70000},
		},
		{
			Network: "pods", ContainerID: "short", IfName: "net1", Addresses: []string{"10.62.0.3"}, Device: "zlzzxpzt7gtek47",
			Index: 8, HostMAC: "ce:00:4d:54:39:02", MTU: 1400, Netns: netnsJSON{ID: 4, PID: 4711}, Tier: "kernel", Forwarding: "kernel", Programs: []attachedJSON{},
		},
		{
			Network: "pods", ContainerID: "detached", IfName: "eth0", Addresses: []string{}, Device: "zlzzxpjrvnwatqz", Up: true,
			Netns: netnsJSON{ID: 5, Path: "/var/run/docker/netns/9f"}, Tier: "conntrack", Forwarding: "tracked", Programs: []attachedJSON{},
			Received: &trafficJSON{}, ReceivedByEBPF: &trafficJSON{}, Problem: "program is detached: from_endpoint",
		},
	}
	exampleNetworks = []networkJSON{
		{"pods", 3, 2, []string{"10.62.0.0/24", "fd00:62::/64"}, "zlzzxp+", forwardingJSON{1, 1, 1}, trafficJSON{4065, 67108864}, trafficJSON{4057, 67108264}, trafficJSON{1022, 70000}},
		{Subnets: []string{}, DevicePattern: "zlabcd+"},
	}
	exampleLeases = []leaseJSON{
		{"pods", "10.62.0.2", "4f1c0b2d9e8a7766554433221100ffee", "eth0", "zlzzxphwu5oivz7", leaseHeld, "", "2026-01-02T03:04:05Z", "/var/lib/cni/networks/pods/10.62.0.2"},
		{"pods", "10.62.0.9", "gone", "", "", leaseStale, "made before the last boot", "2026-01-01T00:00:00Z", "/var/lib/cni/networks/pods/10.62.0.9"},
	}
	examplePrograms = []programJSON{
		{41, "from_endpoint", "4c55a57256eeeddb", true, "2026-01-02T03:04:05Z", 16925, 18432, 28672, 1000, 370000, true, []uint32{1, 2, 3}, []placeJSON{
			{"zlzzxphwu5oivz7", 7, "tcx", "ingress"}, {"zlzzxpjrvnwatqz", 9, "tcx", "ingress"}, {"zlzzxpzt7gtek47", 8, "clsact", "ingress"},
		}},
		{40, "from_endpoint", "0000000000000001", false, "2026-01-01T00:00:00Z", 0, 0, 4096, 0, 0, false, []uint32{}, []placeJSON{}},
	}
	half        = 0.5
	exampleMaps = []mapJSON{
		{9, "counters", "percpu_array", 4, 16, 384, 384, nil, 15672},
		{8, "endpoints", "hash", 16, 40, 32768, 65536, &half, 5 << 20},
	}
	exampleStatus = &statusJSON{
		Release: "1", Loaded: true, Tier: "conntrack", Hook: "tcx", BPFFS: "/sys/fs/bpf", Pins: "/sys/fs/bpf/zipline/4711/v2",
		Networks: []string{"pods"}, Endpoints: endpointsStatusJSON{3, 2, forwardingJSON{1, 1, 1}},
		Uplinks: []uplinkJSON{{"eth0", 2, 1500, true, ""}, {"", 5, 0, false, "the device is gone"}},
		Ruleset: rulesetJSON{true, false}, Packets: verdictsJSON{trafficJSON{4057, 67108264}, trafficJSON{1, 98}, trafficJSON{120, 9800}},
		Leftovers: 2,
		Maps:      []mapUseJSON{{"endpoints", 32768, 65536, half}},
		Findings:  []findingJSON{{"device zlzzxpzt7gtek47", "is down", "ip link set zlzzxpzt7gtek47 up"}},
	}
	freshStatus = &statusJSON{Tier: "direct", Missing: "bpf_skb_ct_lookup: not supported by this kernel", Hook: "clsact"}
)

func TestTables(t *testing.T) {
	for _, c := range []struct {
		name   string
		format string
		rows   func(a *app, g *grid)
	}{
		{"networks", formatTable, func(a *app, g *grid) { a.networkRows(g, exampleNetworks) }},
		{"networks-wide", formatWide, func(a *app, g *grid) { a.networkRows(g, exampleNetworks) }},
		{"endpoints", formatTable, func(a *app, g *grid) { a.endpointRows(g, exampleEndpoints) }},
		{"endpoints-wide", formatWide, func(a *app, g *grid) { a.endpointRows(g, exampleEndpoints) }},
		{"leases", formatTable, func(a *app, g *grid) { a.leaseRows(g, exampleLeases) }},
		{"leases-wide", formatWide, func(a *app, g *grid) { a.leaseRows(g, exampleLeases) }},
		{"programs", formatTable, func(a *app, g *grid) { a.programRows(g, examplePrograms) }},
		{"programs-wide", formatWide, func(a *app, g *grid) { a.programRows(g, examplePrograms) }},
		{"maps", formatTable, func(_ *app, g *grid) { mapRows(g, exampleMaps) }},
		{"status", formatTable, func(_ *app, g *grid) { statusRows(g, exampleStatus) }},
		{"status-fresh", formatTable, func(_ *app, g *grid) { statusRows(g, freshStatus) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{streams: streams{out: &out}, format: c.format}
			if err := a.print(nil, func(g *grid) { c.rows(a, g) }); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, out.String())
			plain := out.String()
			out.Reset()
			a.terminal = true
			if err := a.print(nil, func(g *grid) { c.rows(a, g) }); err != nil {
				t.Fatal(err)
			}
			if painted := out.String(); uncolored(painted) != plain {
				t.Errorf("with colours the table is another one:\n%s", painted)
			}
		})
	}
}

// uncolored removes the escape sequences of colours.
func uncolored(s string) string {
	var plain []byte
	for i := 0; i < len(s); i++ {
		if s[i] == 0x1b {
			for i < len(s) && s[i] != 'm' {
				i++
			}
			continue
		}
		plain = append(plain, s[i])
	}
	return string(plain)
}

func TestAmountsForPeople(t *testing.T) {
	for bytes, want := range map[uint64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_960: "1.0 MB", 67108264: "67.1 MB", 1<<64 - 1: "18.4 EB",
	} {
		if got := amount(bytes); got != want {
			t.Errorf("amount of %d: %q, want %q", bytes, got, want)
		}
	}
	for bytes, want := range map[uint64]string{0: "0B", 1023: "1023B", 28672: "28.0KiB", 5 << 20: "5.0MiB"} {
		if got := memory(bytes); got != want {
			t.Errorf("memory of %d: %q, want %q", bytes, got, want)
		}
	}
}
