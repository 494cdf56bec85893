// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// conntrackFlow is a line of "conntrack -L -o extended,id".
type conntrackFlow struct {
	protocol, state string
	left            int
	fields          map[string][]string
	assured         bool
}

var conntrackLine = regexp.MustCompile(`^ipv[46]\s+\d+\s+(\S+)\s+\d+\s+(\d+)\s+(?:([A-Z_0-9]+)\s+)?(.*)$`)

func (n *flowsNode) conntrack(t *testing.T) map[uint32]conntrackFlow {
	t.Helper()
	all := map[uint32]conntrackFlow{}
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, line := range strings.Split(n.Node.MustRun(t, "conntrack", "-L", "-o", "extended,id", "-f", family), "\n") {
			m := conntrackLine.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			left, err := strconv.Atoi(m[2])
			if err != nil {
				t.Fatal(err)
			}
			c := conntrackFlow{m[1], m[3], left, map[string][]string{}, strings.Contains(line, "[ASSURED]")}
			for _, field := range strings.Fields(m[4]) {
				if name, value, ok := strings.Cut(field, "="); ok {
					c.fields[name] = append(c.fields[name], value)
				}
			}
			id, err := strconv.ParseUint(c.fields["id"][0], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			all[uint32(id)] = c
		}
	}
	return all
}

// checkListing compares what is left of all flows with what the conntrack program
// says. One is under way.
func (n *flowsNode) checkListing(t *testing.T, last *talk) {
	t.Helper()
	time.Sleep(3 * time.Second) // until the others are admitted no more
	if carried := n.flows(t, "--carried"); len(carried) != 1 || carried[0].Carried != carriedBoth || carried[0].Original.Source != last.source.String() {
		t.Errorf("carried %+v; want the one from %s", carried, last.source)
	}
	last.stop()
	time.Sleep(3 * time.Second)
	flows, entries := n.flows(t), n.conntrack(t)
	if len(flows) < 10 {
		t.Errorf("%d flows, want those of all cases", len(flows))
	}
	for _, f := range flows {
		e, ok := entries[f.ID]
		if !ok {
			t.Errorf("flow %+v is unknown to conntrack", f)
			continue
		}
		delete(entries, f.ID)
		compareListed(t, f, e)
	}
	for _, e := range entries {
		ends := append(slices.Clone(e.fields["src"]), e.fields["dst"]...)
		if slices.ContainsFunc(ends, func(s string) bool { return strings.HasPrefix(s, "10.7") || strings.HasPrefix(s, "fd00:7") }) {
			t.Errorf("entry %+v of an endpoint is not listed", e)
		}
	}
	for _, filter := range [][]string{
		{"--not-carried"}, {"--network", "strict"}, {"--endpoint", "container-1"}, {"--protocol", "17"},
		{"--address", "198.51.100.0/24"}, {"--address", "192.0.2.1"}, {"--port", "20003"}, {"--network", "nope"},
	} {
		n.checkFilter(t, filter)
	}
}

func compareListed(t *testing.T, f flowJSON, e conntrackFlow) {
	t.Helper()
	addrPort := func(addr, port string, i int) string {
		text := e.fields[addr][i]
		if len(e.fields[port]) > i {
			a, _ := netip.ParseAddr(text)
			n, _ := strconv.ParseUint(e.fields[port][i], 10, 16)
			text = netip.AddrPortFrom(a, uint16(n)).String()
		}
		return text
	}
	want := []string{
		e.protocol, e.state, addrPort("src", "sport", 0), addrPort("dst", "dport", 0), addrPort("src", "sport", 1), addrPort("dst", "dport", 1),
		e.fields["mark"][0], fmt.Sprint(e.fields["packets"]), fmt.Sprint(e.fields["bytes"]), fmt.Sprint(e.assured),
	}
	got := []string{
		f.Protocol, f.State, f.Original.Source, f.Original.Destination, f.Reply.Source, f.Reply.Destination, fmt.Sprint(f.Mark),
		fmt.Sprint([]uint64{f.Original.Packets, f.Reply.Packets}), fmt.Sprint([]uint64{f.Original.Bytes, f.Reply.Bytes}),
		fmt.Sprint(slices.Contains(f.Status, "assured")),
	}
	// The programs' raised timeouts, and the time between the two listings.
	if !slices.Equal(got, want) || f.TimeoutSeconds < e.left-1 || f.TimeoutSeconds > e.left+2 || !f.Accounted {
		t.Errorf("flow %+v\nis not conntrack's %+v\ngot  %q\nwant %q", f, e, got, want)
	}
}

// checkFilter compares with a choice among all. Entries end meanwhile.
func (n *flowsNode) checkFilter(t *testing.T, args []string) {
	t.Helper()
	value := args[len(args)-1]
	want := map[uint32]bool{}
	for _, f := range n.flows(t) {
		text := fmt.Sprintf("%s %s %s %s", f.Original.Source, f.Original.Destination, f.Reply.Source, f.Reply.Destination)
		fits := false
		switch args[0] {
		case "--not-carried":
			fits = f.Carried == carriedNone
		case "--network":
			fits = slices.ContainsFunc(f.Endpoints, func(e flowEndpointJSON) bool { return e.Network == value })
		case "--endpoint":
			fits = slices.ContainsFunc(f.Endpoints, func(e flowEndpointJSON) bool { return e.ContainerID == value })
		case "--protocol":
			fits = f.Protocol == "udp"
		case "--address":
			fits = strings.Contains(text, strings.TrimSuffix(value, "0/24"))
		case "--port":
			fits = strings.Contains(text, ":"+value)
		}
		if fits {
			want[f.ID] = true
		}
	}
	got := map[uint32]bool{}
	for _, f := range n.flows(t, args...) {
		got[f.ID] = true
	}
	still := n.conntrack(t)
	maps.DeleteFunc(want, func(id uint32, _ bool) bool { _, ok := still[id]; return !ok })
	maps.DeleteFunc(got, func(id uint32, _ bool) bool { _, ok := still[id]; return !ok })
	if !maps.Equal(got, want) {
		t.Errorf("flows %v: %v; want %v", args, got, want)
	}
}

var volatileCells = regexp.MustCompile(`:\d+|\b\d+s\b`)

// checkTable compares the lines for people with the values for programs.
func (n *flowsNode) checkTable(t *testing.T, from *testrig.Namespace, to *flowsPod) {
	t.Helper()
	filter := []string{"--endpoint", "container-1", "--port", "26000"}
	to.ServeUDP(t, netip.AddrPortFrom(to.v4, 26000))
	n.Node.MustRun(t, "nft", "add", "element", "ip", "user", "hostports", fmt.Sprintf("{ 26000 : %s . 26000 }", to.v4))
	startTalk(t, "udp", from, netip.MustParseAddrPort("10.96.0.10:26000"))
	time.Sleep(300 * time.Millisecond)
	flows := n.flows(t, filter...)
	code, out, errs := n.execute(t, append([]string{"flows"}, filter...)...)
	out = volatileCells.ReplaceAllStringFunc(out, func(s string) string {
		if strings.HasPrefix(s, ":") && s != ":26000" {
			return ":PORT"
		}
		if strings.HasSuffix(s, "s") {
			return "TIME"
		}
		return s
	})
	golden, err := os.ReadFile("testdata/flows.golden")
	if err != nil {
		t.Fatal(err)
	}
	want := string(golden)
	if code != exitOK || errs != "" || len(flows) != 1 || squeeze(out) != squeeze(want) {
		t.Errorf("exit code %d, stderr %q, %d flows\n%s\nwant\n%s", code, errs, len(flows), out, want)
	}
}

// squeeze makes runs of blanks one: masked fields are as wide as they were.
func squeeze(s string) string { return regexp.MustCompile(` +`).ReplaceAllString(s, " ") }

func TestFlowsUsage(t *testing.T) {
	for _, line := range []string{
		"flows --carried --not-carried", "flows --address nope", "flows --protocol nope", "flows --port 70000", "flows --watch=1ms", "flows x",
	} {
		if code, out, errs := execute(t, strings.Fields(line)...); code != exitUsage || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", line, code, out, errs)
		}
	}
}
