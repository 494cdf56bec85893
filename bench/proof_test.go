// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
	"github.com/zipline-cni/zipline/loader"
)

func TestProofOfTheWay(t *testing.T) {
	const in, out = bpf.HookEndpoint, bpf.HookUplink
	both := carriedBy(map[bpf.Hook]int{in: 1, out: 1})
	one := carriedBy(map[bpf.Hook]int{in: 2})
	for _, c := range []struct {
		name         string
		judge        wayJudge
		after        tallies
		transactions uint64
		share        float64
		complaint    string
	}{
		{"all carried", both, tallies{in: {1010, 10}, out: {1010, 0}}, 1000, 0.99, ""},
		{"left by one program", both, tallies{in: {1000, 0}, out: {1000, 100}}, 1000, 0.909, "only 90.9 % of the packets"},
		{"one program sees nothing", both, tallies{in: {1000, 0}}, 0, 0, "from_uplink carried 0 packets"},
		{"one program sees too little", both, tallies{in: {1000, 0}, out: {10, 0}}, 1000, 0, "from_uplink carried 10 packets"},
		{"bulk has fewer acks than data", both, tallies{in: {1000, 10}, out: {10, 0}}, 0, 0.99, ""},
		{"one of two directions is not carried", one, tallies{in: {1000, 0}}, 1000, 0, "from_endpoint carried 1000"},
		{"both directions by one program", one, tallies{in: {2000, 0}}, 1000, 1, ""},
		{"what becomes of it by chance is noted", carriedByChance(map[bpf.Hook]int{in: 1, out: 1}), tallies{in: {100, 300}, out: {50, 50}}, 1000, 0.25, ""},
		{"the kernel alone", carriedByNone, tallies{in: {0, 1000}}, 1000, 0, ""},
		{"a program where there should be none", carriedByNone, tallies{out: {1, 1000}}, 1000, 0, "from_uplink carried 1 packets"},
		{"a program that is passed", taxedBy(out, true), tallies{out: {0, 1001}}, 1000, 0, ""},
		{"a program that is not passed", taxedBy(out, true), tallies{out: {0, 10}}, 1000, 0, "from_uplink met 10 packets; units: 1000"},
		{"a program that bulk does not pass", taxedBy(out, true), tallies{in: {0, 10}}, 0, 0, "from_uplink met 0 packets"},
		{"a program that is off", taxedBy(out, false), tallies{}, 1000, 0, ""},
		{"a program that is not off", taxedBy(out, false), tallies{out: {0, 1}}, 1000, 0, "from_uplink met 1 packets while it was off"},
		{"a tax that carries", taxedBy(out, true), tallies{out: {5, 1000}}, 1000, 0, "from_uplink carried 5 packets"},
	} {
		// What was counted before belongs to others.
		before := tallies{in: {5, 7}, out: {11, 13}}
		after := tallies{}
		for _, hook := range []bpf.Hook{in, out} {
			after[hook] = tally{before[hook].carried + c.after[hook].carried, before[hook].left + c.after[hook].left}
		}
		share, complaint := c.judge(before, after, FlowSample{Workload: TCPRR, Units: c.transactions})
		if share < c.share-0.001 || share > c.share+0.001 || !strings.Contains(complaint, c.complaint) || (complaint == "") != (c.complaint == "") {
			t.Errorf("%s: share %.3f, complaint %q", c.name, share, complaint)
		}
	}
}

// The first and the last packets of many connections are many of a short sample.
func TestEachConnectionHasPacketsOfItsOwn(t *testing.T) {
	const in = bpf.HookEndpoint
	for _, c := range []struct {
		left        uint64
		connections int
		valid       bool
	}{
		{50, 0, true}, {60, 0, false}, {50 + 16*32, 32, true}, {70 + 16*32, 32, false},
	} {
		s := FlowSample{Workload: TCPStream, Connections: c.connections}
		share, complaint := carriedBy(map[bpf.Hook]int{in: 1})(tallies{}, tallies{in: {1000, c.left}}, s)
		if want := 1000 / float64(1000+c.left); (complaint == "") != c.valid || share != want {
			t.Errorf("%d packets left of %d connections: share %.3f, complaint %q", c.left, c.connections, share, complaint)
		}
	}
}

func TestCarriersProveWhatTheirPacketsMeet(t *testing.T) {
	const in, out = bpf.HookEndpoint, bpf.HookUplink
	for _, c := range []struct {
		carrier Carrier
		cell    cell
		enough  tallies // for 1000 units
		wrong   tallies
		want    string // complaint about what is wrong
	}{
		{CarrierEBPF, cell{Local, TCPRR, 1, 1}, tallies{in: {2000, 0}}, tallies{in: {1000, 0}}, "from_endpoint carried 1000"},
		{CarrierEBPF, cell{Service, UDPRR, 1, 1}, tallies{in: {2000, 0}}, tallies{in: {1000, 0}}, "from_endpoint carried 1000"},
		{CarrierEBPF, cell{Outside, TCPRR, 1, 1}, tallies{in: {1000, 0}, out: {1000, 0}}, tallies{in: {2000, 0}}, "from_uplink carried 0"},
		{CarrierEBPF, cell{HostPort, TCPRR, 1, 1}, tallies{in: {1000, 0}, out: {1000, 0}}, tallies{out: {2000, 0}}, "from_endpoint carried 0"},
		{CarrierEBPF, cell{Local, TCPStream, 1, 1}, tallies{in: {20, 0}}, tallies{in: {20, 20}}, "only 50.0 %"},
		{CarrierEBPF, cell{Local, TCPCRR, 1, 1}, tallies{in: {10, 1000}}, nil, ""},
		{CarrierEBPF, cell{HostPort, UDP64, 1, 1}, tallies{out: {10, 1000}}, nil, ""},
		{CarrierNeighbours, cell{Local, TCPCRR, 1, 1}, tallies{in: {6000, 0}}, tallies{in: {10, 6000}}, "from_endpoint carried 10"},
		{CarrierNeighbours, cell{Local, UDP64, 1, 1}, tallies{in: {1000, 0}}, tallies{in: {10, 1000}}, "from_endpoint carried 10"},
		{CarrierNeighbours, cell{Service, TCPCRR, 1, 1}, tallies{in: {10, 6000}}, nil, ""},
		{CarrierKernel, cell{Local, TCPRR, 1, 1}, tallies{in: {0, 2000}}, tallies{in: {1, 1999}}, "carried 1 packets"},
	} {
		p := c.carrier.proof(nil, c.cell)
		s := FlowSample{Workload: c.cell.workload, Units: 1000}
		if _, complaint := p.judge(tallies{}, c.enough, s); complaint != "" {
			t.Errorf("%s, %s: %s", c.carrier, c.cell, complaint)
		}
		if c.wrong == nil {
			continue
		}
		if _, complaint := p.judge(tallies{}, c.wrong, s); !strings.Contains(complaint, c.want) {
			t.Errorf("%s, %s: complaint %q; want %q", c.carrier, c.cell, complaint, c.want)
		}
	}
	if p := Carrier("").proof(nil, cell{Local, TCPRR, 1, 1}); p != nil {
		t.Error("somebody is asked for a proof of nothing")
	}
}

func TestTallyLeavesOutWhatDevicesSay(t *testing.T) {
	var got tally
	for _, reason := range []bpf.Reason{
		bpf.ZiplineReasonREASON_DIRECT, bpf.ZiplineReasonREASON_ARP_REPLY, bpf.ZiplineReasonREASON_NEXT_GROUP,
		bpf.ZiplineReasonREASON_NEXT_NO_ENDPOINT, bpf.ZiplineReasonREASON_DROP_SOURCE, bpf.ZiplineReasonREASON_NEXT_ND,
	} {
		got = got.add(loader.Counter{Reason: reason, Packets: 10})
	}
	if want := (tally{carried: 10, left: 20}); got != want {
		t.Errorf("tally %+v; want %+v", got, want)
	}
}

// The negative control: without the program of the uplink answers go through the
// stack, and nothing but the counters shows it.
func TestRoundThatTheStackCarriedIsInvalid(t *testing.T) {
	testutil.RequireRoot(t)
	r, err := newFlowRun(t, FlowOptions{Warmup: 50 * time.Millisecond, Duration: 100 * time.Millisecond, Placement: Together})
	if err != nil {
		t.Fatal(err)
	}
	site, err := newTrackedSite(t, FlowOptions{Zipline: reference.BuildZipline(t), Plugins: reference.Plugins(t)})
	if err != nil {
		t.Fatal(err)
	}
	programs, err := findPrograms(t, site.world.Node, testrig.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	for _, on := range []bool{true, false} {
		if err := programs.set(on); err != nil {
			t.Fatal(err)
		}
		for _, w := range []Workload{TCPRR, TCPStream} {
			l := site.lane(cell{Outside, w, 1, 1})
			if err := r.sample(FlowSample{Path: Outside, Workload: w, Subject: Tracked, Connections: 1}, l); err != nil {
				t.Fatal(err)
			}
			s := r.samples[len(r.samples)-1]
			if (s.Invalid == "") != on || (s.Carried >= minCarried) != on {
				t.Errorf("%s with programs %v: share %.3f, complaint %q", w, on, s.Carried, s.Invalid)
			}
		}
	}
}
