// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader/trace"
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
			Received: &trafficJSON{4065, 67108864}, ReceivedByStack: trafficJSON{8, 600}, ReceivedByEBPF: &trafficJSON{4057, 67108264}, Sent: trafficJSON{1022, 70000}, SentPackets: &pathJSON{990, 2, 30},
		},
		{
			Network: "pods", ContainerID: "short", IfName: "net1", Addresses: []string{"10.62.0.3"}, Device: "zlzzxpzt7gtek47",
			Index: 8, HostMAC: "ce:00:4d:54:39:02", MTU: 1400, Netns: netnsJSON{ID: 4, PID: 4711}, Tier: "kernel", Forwarding: "kernel", Programs: []attachedJSON{},
		},
		{
			Network: "pods", ContainerID: "detached", IfName: "eth0", Addresses: []string{}, Device: "zlzzxpjrvnwatqz", Up: true,
			Netns: netnsJSON{ID: 5, Path: "/var/run/docker/netns/9f"}, Tier: "conntrack", Forwarding: "tracked", Programs: []attachedJSON{},
			Received: &trafficJSON{}, ReceivedByEBPF: &trafficJSON{}, SentPackets: &pathJSON{}, Problem: "program is detached: from_endpoint",
		},
	}
	exampleNetworks = []networkJSON{
		{"pods", 3, 2, []string{"10.62.0.0/24", "fd00:62::/64"}, "zlzzxp+", forwardingJSON{1, 1, 1}, trafficJSON{4065, 67108864}, trafficJSON{4057, 67108264}, trafficJSON{1022, 70000}, pathJSON{990, 2, 30}},
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
		Release: "1", Loaded: true, Tier: "conntrack", Hook: "tcx", BPFFS: "/sys/fs/bpf", Pins: "/sys/fs/bpf/zipline/4711/v4",
		Networks: []string{"pods"}, Endpoints: endpointsStatusJSON{3, 2, forwardingJSON{1, 1, 1}},
		Uplinks: []uplinkJSON{{"eth0", 2, 1500, true, ""}, {"", 5, 0, false, "the device is gone"}},
		Ruleset: rulesetJSON{true, false}, Packets: verdictsJSON{trafficJSON{4057, 67108264}, trafficJSON{4, 318}, trafficJSON{120, 9800}},
		Drops:     []dropJSON{{"drop-source", "source address not leased to the device", trafficJSON{3, 258}}, {"drop-mac", "source mac is not the endpoint's", trafficJSON{1, 60}}},
		Leftovers: 2,
		Maps:      []mapUseJSON{{"endpoints", 32768, 65536, half}},
		Findings:  []findingJSON{{"device zlzzxpzt7gtek47", "is down", "ip link set zlzzxpzt7gtek47 up"}},
	}
	exampleFlows = []flowJSON{
		{
			Protocol: "tcp", State: "ESTABLISHED", TimeoutSeconds: 432001, Translation: []string{"SNAT to 192.0.2.1:51674"}, Carried: carriedBoth,
			Endpoints: []flowEndpointJSON{{Network: "pods", ContainerID: "4f1c0b2d9e8a7766554433221100ffee"}},
			Original:  flowDirectionJSON{Source: "10.62.0.2:51674", Carried: true}, Reply: flowDirectionJSON{Source: "192.0.2.2:5201", Carried: true},
		},
		{
			Protocol: "udp", TimeoutSeconds: 30, Translation: []string{}, Carried: carriedOriginal,
			Endpoints: []flowEndpointJSON{{Network: "pods", ContainerID: "short"}, {Device: "zlzzxpjrvnwatqz"}},
			Original:  flowDirectionJSON{Source: "[fd00:62::2]:9", Carried: true}, Reply: flowDirectionJSON{Source: "[fd00:62::3]:53", Reason: "flow checks in with the stack"},
		},
		{
			Protocol: "icmp", TimeoutSeconds: 1, Translation: []string{}, Carried: carriedNone, Endpoints: []flowEndpointJSON{{Network: "pods", ContainerID: "short"}},
			Original: flowDirectionJSON{Source: "10.62.0.2", Reason: "no tcp or udp"}, Reply: flowDirectionJSON{Source: "192.0.2.2", Reason: "sent by the node itself", Detail: "ends at the node itself"},
		},
	}
	exampleCounts = []traceCountJSON{
		{"zlzzxphwu5oivz7", "pods", "4f1c0b2d9e8a7766554433221100ffee", "from_endpoint", "redirect", "tracked-uplink", 4065, 67108864},
		{"zlzzxpjrvnwatqz", "pods", "short", "from_endpoint", "drop", "drop-source", 1, 86},
		{"", "", "", "from_uplink", "next", "next-no-endpoint", 12, 984},
	}
	exampleLeftovers = []leftoverJSON{
		{"entry", "endpoints 10.62.0.9", "zlzzxpzt7gtek47"},
		{"lease", "pods 10.62.0.9", "gone eth0"},
		{"node", "/sys/fs/bpf/zipline/4711", "network namespace that is gone"},
	}
	exampleRepairs = []repairJSON{
		{"zlzzxphwu5oivz7", "route 10.62.0.2", "is missing on the node", true, ""},
		{"", "table inet zipline", "is missing", true, ""},
		{"zlzzxpzt7gtek47", "configuration", "is not known", false, "libcni's cache has it not"},
	}
	exampleSteps = []stepJSON{
		{"attached", "zlzzxphwu5oivz7", "from_endpoint", "tcx", 0, 41},
		{"replaced", "eth0", "to_device", "clsact", 40, 42},
		{"unpinned", "", "from_uplink", "pin", 39, 0},
	}
	exampleProgs = []progJSON{
		{Device: "eth0", Direction: "ingress", Hook: "tcx", Position: 1, ProgramID: 7, Program: "police", Tag: "0123456789abcdef", LinkID: 3, Pin: "/sys/fs/bpf/police"},
		{Device: "eth0", Direction: "ingress", Hook: "tcx", Position: 2, ProgramID: 43, Program: "from_uplink", Tag: "534e7387a425030b"},
		{Device: "eth0", Direction: "egress", Hook: "tcx", Position: 1, ProgramID: 8, Program: "count", Tag: "0123456789abcdee", LinkID: 4},
		{Device: "eth0", Direction: "egress", Hook: "clsact", Position: 1, ProgramID: 9, Program: "limit", Tag: "0123456789abcded", Priority: 50},
	}
	exampleProg = progShowJSON{
		ProgramID: 7, Program: "police", Type: "SchedCLS", Tag: "0123456789abcdef", LoadedAt: "2026-01-02T03:04:05Z", Maps: []uint32{1, 2}, JITBytes: 88,
		Runs: 62, RunTimeNs: 6200, AttachedTo: exampleProgs[:1], Instructions: []string{"police:", "\t0: MovImm dst: r0 imm: -1", "\t1: Exit"}, VerifierLog: []string{"processed 2 insns"},
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
		{"flows-states", formatTable, func(_ *app, g *grid) { flowRows(g, exampleFlows) }},
		{"trace-count", formatTable, func(_ *app, g *grid) {
			traceCountRows(g, exampleCounts, []string{"pods/4f1c0b2d9e8a", "pods/short", "-"})
		}},
		{"gc", formatTable, func(_ *app, g *grid) { leftoverRows(g, exampleLeftovers) }},
		{"repair", formatTable, func(_ *app, g *grid) { repairRows(g, exampleRepairs, false) }},
		{"repair-dry-run", formatTable, func(_ *app, g *grid) { repairRows(g, exampleRepairs, true) }},
		{"steps", formatTable, func(_ *app, g *grid) { stepRows(g, exampleSteps) }},
		{"prog-list", formatTable, func(_ *app, g *grid) { progTable(g, exampleProgs) }},
		{"prog-show", formatTable, func(_ *app, g *grid) { progShowTable(g, exampleProg) }},
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

// TestLines compares what trace and monitor print as it happens.
func TestLines(t *testing.T) {
	pod := datapath.Attached{Attachment: datapath.Attachment{Network: "pods", ContainerID: "4f1c0b2d9e8a7766554433221100ffee", IfName: "eth0"}, HostDevice: "zlzzxphwu5oivz7"}
	r := &traceRun{app: &app{}, names: &endpointNames{indexes: map[int]datapath.Attached{7: pod}}}
	tcp := func(src, dst string) trace.Tuple {
		return trace.Tuple{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), EtherType: unix.ETH_P_IP, Protocol: unix.IPPROTO_TCP, TCPFlags: 0x18}
	}
	when := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	inside, masqueraded := tcp("10.62.0.2:51674", "192.0.2.2:5201"), tcp("192.0.2.1:51674", "192.0.2.2:5201")
	udp6 := trace.Tuple{Src: netip.MustParseAddrPort("[fd00:62::2]:9"), Dst: netip.MustParseAddrPort("[fd00::53]:53"), EtherType: unix.ETH_P_IPV6, Protocol: unix.IPPROTO_UDP}
	arp := trace.Tuple{Src: netip.MustParseAddrPort("10.62.0.2:0"), Dst: netip.MustParseAddrPort("10.62.0.1:0"), EtherType: unix.ETH_P_ARP}
	ospf := trace.Tuple{Src: arp.Src, Dst: arp.Dst, EtherType: unix.ETH_P_IP, Protocol: 89}
	lldp := trace.Tuple{EtherType: 0x88cc}
	var lines, painted strings.Builder
	for _, e := range []trace.Event{
		{Hook: bpf.HookEndpoint, Reason: bpf.ZiplineReasonREASON_TRACKED_UPLINK, Came: inside, Went: masqueraded, Length: 65226, Endpoint: 7},
		{Hook: bpf.HookUplink, Reason: bpf.ZiplineReasonREASON_NEXT_NO_ENDPOINT, Came: udp6, Went: udp6, Length: 82},
		{Hook: bpf.HookEndpoint, Reason: bpf.ZiplineReasonREASON_DROP_SOURCE, Came: udp6, Went: udp6, Length: 82, Endpoint: 7},
		{Hook: bpf.HookDevice, Reason: bpf.ZiplineReasonREASON_NEXT_ADMITTED, Came: inside, Went: inside, Length: 66, Endpoint: 7, Mark: 0x10, Known: true},
		{Hook: bpf.HookEndpoint, Reason: bpf.ZiplineReasonREASON_ARP_REPLY, Came: arp, Went: arp, Length: 42, Endpoint: 7},
		{Hook: bpf.HookEndpoint, Reason: bpf.ZiplineReasonREASON_NEXT_PROTOCOL, Came: ospf, Went: ospf, Length: 78, Endpoint: 7},
		{Hook: bpf.HookEndpoint, Reason: bpf.ZiplineReasonREASON_NEXT_ETHERTYPE, Came: lldp, Went: lldp, Length: 60, Endpoint: 7},
	} {
		e.Time = when
		r.terminal = false
		lines.WriteString(r.eventLine(&e) + "\n")
		r.terminal = true
		painted.WriteString(r.eventLine(&e) + "\n")
	}
	golden(t, "trace", lines.String())
	if uncolored(painted.String()) != lines.String() {
		t.Errorf("with colours the lines are others:\n%s", painted.String())
	}
	lines.Reset()
	for _, e := range []eventJSON{
		{Event: "attach", Network: "pods", ContainerID: pod.ContainerID, IfName: "eth0", Device: pod.HostDevice},
		{Event: "neighbour removed", Network: "pods", ContainerID: "short", IfName: "eth0", Device: pod.HostDevice, Address: "10.62.0.2", Detail: "52:e9:4d:54:39:81"},
		{Event: eventRelease, Network: "pods", ContainerID: "short", Address: "10.62.0.3"},
		{Event: "events lost", Detail: "of leases: what follows is different since"},
	} {
		e.Time = when.Format(eventTime)
		lines.WriteString(e.line() + "\n")
	}
	golden(t, "monitor", lines.String())
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
