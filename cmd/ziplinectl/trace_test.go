// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

func (n *watchedNode) trace(tb testing.TB, args ...string) *running {
	tb.Helper()
	r := n.start(tb, append([]string{"trace"}, args...)...)
	r.ready(tb, "watching")
	return r
}

func traced(t *testing.T, out string) []traceEventJSON {
	t.Helper()
	var events []traceEventJSON
	for line := range strings.Lines(out) {
		var e traceEventJSON
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

func wantEvent(t *testing.T, events []traceEventJSON, what string, fits func(e *traceEventJSON) bool) *traceEventJSON {
	t.Helper()
	for i := range events {
		if fits(&events[i]) {
			return &events[i]
		}
	}
	var all strings.Builder
	for _, e := range events {
		fmt.Fprintf(&all, "%+v\n", e)
	}
	t.Errorf("no event for %s among %d:\n%s", what, len(events), all.String())
	return &traceEventJSON{}
}

// echo makes a TCP server of pod 1 and lets pod 0 talk to it, by both families.
func (n *watchedNode) echo(t *testing.T, rounds int) (v4, v6 netip.AddrPort) {
	t.Helper()
	to := n.pods[1]
	v4 = to.ServeTCP(t, netip.AddrPortFrom(to.v4, 0)).Addr
	v6 = to.ServeTCP(t, netip.AddrPortFrom(to.v6, 0)).Addr
	for range rounds {
		for _, dst := range []netip.AddrPort{v4, v6} {
			if _, err := n.pods[0].EchoTCP(dst, make([]byte, 1000), testrig.Socket{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return v4, v6
}

func TestTraceShowsEachDecision(t *testing.T) {
	n := newWatchedNode(t, "direct", 2)
	r := n.trace(t, "-o", "json", "--rate", "0")
	v4, v6 := n.echo(t, 1)
	if _, err := n.pods[0].EchoTCP(n.outside(t), make([]byte, 100), testrig.Socket{}); err != nil {
		t.Fatal(err)
	}
	n.pods[0].MustRun(t, "ip", "addr", "add", "10.99.0.1/32", "dev", "lo")
	_, _ = n.pods[0].EchoUDP(netip.AddrPortFrom(n.pods[1].v4, 9), []byte("x"), testrig.Socket{
		Source: netip.MustParseAddrPort("10.99.0.1:0"), Timeout: 100 * time.Millisecond,
	}) // dropped: the source address is not leased
	time.Sleep(200 * time.Millisecond)
	events := traced(t, r.stop(t))
	for _, dst := range []netip.AddrPort{v4, v6} {
		e := wantEvent(t, events, "a SYN to "+dst.String(), func(e *traceEventJSON) bool {
			return e.Destination == dst.Addr().String() && e.DestinationPort == dst.Port() && e.TCPFlags == "S"
		})
		if e.Verdict != "redirect" || e.Reason != "direct" || e.ContainerID != "pod0" || e.Network != "net" ||
			e.Direction != "out" || e.Hook != "from_endpoint" || e.Protocol != "tcp" || e.Peer == "" || e.Translation != nil {
			t.Errorf("SYN: %+v", e)
		}
		when, err := time.Parse(traceTime, e.Time)
		if err != nil || time.Since(when) > time.Minute || time.Since(when) < 0 || when.Location() != time.UTC {
			t.Errorf("time %q: %v", e.Time, err)
		}
	}
	wantEvent(t, events, "a spoofed datagram", func(e *traceEventJSON) bool {
		return e.Source == "10.99.0.1" && e.Verdict == "drop" && e.Reason == "drop-source" && e.Protocol == "udp" && e.DestinationPort == 9
	})
	wantEvent(t, events, "what goes outside", func(e *traceEventJSON) bool {
		return e.Destination == testrig.OutsideIPv4.String() && e.Verdict == "next" && e.ContainerID == "pod0"
	})
}

// outside is a server behind the uplink.
func (n *watchedNode) outside(t *testing.T) netip.AddrPort {
	t.Helper()
	return n.Outside.ServeTCP(t, netip.AddrPortFrom(testrig.OutsideIPv4, 0)).Addr
}

// tracedTalk has a server answer some messages, ends the trace and returns what it
// saw. The connection stays until the test ends.
func (r *running) tracedTalk(t *testing.T, from *testrig.Namespace, server netip.AddrPort) []traceEventJSON {
	t.Helper()
	conn, err := from.Dial("tcp", server, testrig.Socket{Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := testrig.ReadPeer(conn); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := testrig.Exchange(conn, conn, []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(200 * time.Millisecond)
	return traced(t, r.stop(t))
}

// TestTraceShowsTheTranslation masquerades a flow to outside: once it is carried,
// its packets leave from_endpoint with the node's address, and its answers
// leave from_uplink with the container's.
func TestTraceShowsTheTranslation(t *testing.T) {
	n := newWatchedNode(t, "tracked", 1)
	r := n.trace(t, "-o", "json", "--rate", "0", "--endpoint", "pod0")
	events := r.tracedTalk(t, &n.pods[0].Namespace, n.outside(t))
	pod, node := n.pods[0].v4.String(), testrig.NodeIPv4.String()
	out := wantEvent(t, events, "a masqueraded packet", func(e *traceEventJSON) bool { return e.Reason == "tracked-uplink" })
	if out.Source != pod || out.Direction != "out" || out.Translation == nil || out.Translation.Source != node ||
		out.Translation.Destination != testrig.OutsideIPv4.String() || out.Verdict != "redirect" {
		t.Errorf("masqueraded packet: %+v, translation %+v", out, out.Translation)
	}
	in := wantEvent(t, events, "its answer", func(e *traceEventJSON) bool { return e.Reason == "tracked-local" })
	if in.Destination != node || in.Direction != "in" || in.Translation == nil || in.Translation.Destination != pod ||
		in.ContainerID != "pod0" || in.Hook != "from_uplink" {
		t.Errorf("answer: %+v, translation %+v", in, in.Translation)
	}
	wantEvent(t, events, "what to_device admits", func(e *traceEventJSON) bool {
		return e.Reason == "next-admitted" && e.Hook == "to_device" && e.ConntrackMark != nil
	})
}

// TestTraceShowsAForwardedPort has a host port of somebody's nftables lead to a
// container: what comes to the port leaves from_uplink with the container's address
// and port, and the answers leave from_endpoint with the node's, as conntrack has it.
func TestTraceShowsAForwardedPort(t *testing.T) {
	n := newWatchedNode(t, "tracked", 1)
	pod := n.pods[0].ServeTCP(t, netip.AddrPortFrom(n.pods[0].v4, 0)).Addr
	n.Node.MustRunInput(t, fmt.Sprintf(`table ip user {
	chain pre { type nat hook prerouting priority dstnat; ip daddr %s tcp dport 8080 dnat to %s; }
}`, testrig.NodeIPv4, pod), "nft", "-f", "-")
	r := n.trace(t, "-o", "json", "--rate", "0", "--endpoint", "pod0")
	port := netip.AddrPortFrom(testrig.NodeIPv4, 8080)
	events := r.tracedTalk(t, n.Outside, port)
	in := wantEvent(t, events, "what comes to the port", func(e *traceEventJSON) bool { return e.Hook == "from_uplink" && e.Reason == "tracked-local" })
	if in.Destination != port.Addr().String() || in.DestinationPort != port.Port() || in.Direction != "in" || in.Translation == nil ||
		in.Translation.Destination != pod.Addr().String() || in.Translation.DestinationPort != pod.Port() || in.Translation.Source != in.Source {
		t.Errorf("to the port: %+v, translation %+v", in, in.Translation)
	}
	out := wantEvent(t, events, "its answer", func(e *traceEventJSON) bool { return e.Hook == "from_endpoint" && e.Reason == "tracked-uplink" })
	if out.Source != pod.Addr().String() || out.SourcePort != pod.Port() || out.Direction != "out" || out.Translation == nil ||
		out.Translation.Source != port.Addr().String() || out.Translation.SourcePort != port.Port() || out.Translation.Destination != in.Source {
		t.Errorf("answer: %+v, translation %+v", out, out.Translation)
	}
	original, reply := fmt.Sprintf("src=%s dst=%s sport=%d dport=8080", in.Source, port.Addr(), in.SourcePort),
		fmt.Sprintf("src=%s dst=%s sport=%d dport=%d", pod.Addr(), in.Source, pod.Port(), in.SourcePort)
	if flows := n.Node.Conntrack(t, pod.Addr().String()); len(flows) != 1 || !strings.Contains(flows[0], original+" ") || !strings.Contains(flows[0], reply+" ") {
		t.Errorf("conntrack has %q, want %s and %s", flows, original, reply)
	}
}

func TestTraceFilters(t *testing.T) {
	n := newWatchedNode(t, "direct", 3)
	v4, _ := n.echo(t, 1)
	port := fmt.Sprint(v4.Port())
	for _, c := range []struct {
		args string
		some bool
		fits func(e *traceEventJSON) bool
	}{
		{"--port " + port, true, func(e *traceEventJSON) bool { return e.SourcePort == v4.Port() || e.DestinationPort == v4.Port() }},
		{"--port 9", false, nil},
		{"--address fd00:77::/64", true, func(e *traceEventJSON) bool { return strings.HasPrefix(e.Source, "fd00:77::") }},
		{"--address " + v4.Addr().String(), true, func(e *traceEventJSON) bool {
			return e.Source == v4.Addr().String() || e.Destination == v4.Addr().String()
		}},
		{"--address 10.99.0.0/16", false, nil},
		{"--protocol tcp", true, func(e *traceEventJSON) bool { return e.Protocol == "tcp" }},
		{"--protocol udp,sctp,47", false, nil},
		{"--verdict redirect --protocol tcp", true, func(e *traceEventJSON) bool { return e.Verdict == "redirect" }},
		{"--verdict drop", false, nil},
		{"--reason direct", true, func(e *traceEventJSON) bool { return e.Reason == "direct" }},
		{"--reason drop-source,drop-mac", false, nil},
		{"--hook from_endpoint --protocol tcp", true, func(e *traceEventJSON) bool { return e.Hook == "from_endpoint" }},
		{"--hook to_device --protocol tcp --reason direct", false, nil},
		{"--endpoint pod1 --protocol tcp", true, func(e *traceEventJSON) bool { return true }},
		{"--endpoint " + n.pods[0].v4.String() + " --protocol tcp", true, func(e *traceEventJSON) bool { return true }},
		{"--endpoint pod2 --protocol tcp", false, nil},
		{"--network net --protocol tcp", true, func(e *traceEventJSON) bool { return e.Network == "net" }},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := n.trace(t, append(strings.Fields(c.args), "-o", "json", "--rate", "0")...)
			for range 3 {
				if _, err := n.pods[0].EchoTCP(v4, make([]byte, 100), testrig.Socket{}); err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(c.args, "fd00") {
				n.echo(t, 1)
			}
			time.Sleep(150 * time.Millisecond)
			events := traced(t, r.stop(t))
			if (len(events) > 0) != c.some {
				t.Errorf("%d events; want some: %v", len(events), c.some)
			}
			for _, e := range events {
				if c.some && !c.fits(&e) {
					t.Errorf("passed the filter: %+v", e)
				}
			}
		})
	}
}

// TestTraceCountsWhatTheProgramsCount compares with the programs' own counters.
func TestTraceCountsWhatTheProgramsCount(t *testing.T) {
	n := newWatchedNode(t, "direct", 2)
	v4, _ := n.echo(t, 1)
	r := n.trace(t, "--count", "-o", "json", "--reason", "direct")
	before := n.counted(t)
	for range 20 {
		if _, err := n.pods[0].EchoTCP(v4, make([]byte, 100), testrig.Socket{}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond) // the last FIN
	want := n.counted(t) - before
	var rows []traceCountJSON
	if err := json.Unmarshal([]byte(r.stop(t)), &rows); err != nil {
		t.Fatal(err)
	}
	var sum uint64
	var ids []string
	for _, row := range rows {
		sum += row.Packets
		ids = append(ids, row.ContainerID)
		if row.Hook != "from_endpoint" || row.Verdict != "redirect" || row.Bytes < row.Packets*54 {
			t.Errorf("row %+v", row)
		}
	}
	slices.Sort(ids)
	if sum != want || want < 100 || strings.Join(ids, " ") != "pod0 pod1" {
		t.Errorf("%d packets of %v; the programs counted %d", sum, ids, want)
	}
}

func TestTraceIsBounded(t *testing.T) {
	n := newWatchedNode(t, "direct", 2)
	v4, _ := n.echo(t, 1)
	flood := func() {
		for range 100 {
			if _, err := n.pods[0].EchoTCP(v4, make([]byte, 100), testrig.Socket{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := n.trace(t, "--rate", "50", "-o", "json", "--reason", "direct")
	begin := time.Now()
	flood()
	time.Sleep(100 * time.Millisecond)
	seconds := int(time.Since(begin)/time.Second) + 2
	lines := strings.Count(r.stop(t), "\n")
	if lines == 0 || lines > 52*seconds || !strings.Contains(r.err.String(), "over --rate 50 a second") {
		t.Errorf("%d events in %d seconds, stderr %q", lines, seconds, r.err.String())
	}
	r = n.trace(t, "--limit", "3")
	flood()
	if out := r.wait(t); strings.Count(out, "\n") != 3 {
		t.Errorf("--limit 3 printed %q", out)
	}
	r = n.trace(t, "--sample", "10", "--rate", "0", "--reason", "direct")
	before := n.counted(t)
	flood()
	time.Sleep(200 * time.Millisecond)
	all := int(n.counted(t) - before)
	if got := strings.Count(r.stop(t), "\n"); got < all/20 || got > all/5 {
		t.Errorf("--sample 10 printed %d of %d", got, all)
	}
	begin = time.Now()
	if r = n.trace(t, "--duration", "300ms", "--port", "9"); r.wait(t) != "" || time.Since(begin) > 10*time.Second {
		t.Errorf("--duration: ended after %v", time.Since(begin))
	}
}
