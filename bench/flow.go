// SPDX-License-Identifier: Apache-2.0

// Connections: what they do, where their ends run, and one measurement.

package bench

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bench/load"
	"github.com/zipline-cni/zipline/internal/tbrun"
)

// The names of default cases that the code knows.
const (
	// Wire is two containers joined by nothing but a veth pair.
	Wire Subject = "wire"
	// WireAgain is another one: what the two differ by is what a run of this
	// length cannot tell from nothing.
	WireAgain Subject = "wire again"
	// Tracked, Direct and Kernel are the plugin under test, by its key "forwarding",
	// with "bigTCP" off. [Zipline] is the plugin without either key.
	Tracked Subject = "tracked"
	Direct  Subject = "direct"
	Kernel  Subject = "kernel"
)

// Path is a way that packets take.
type Path string

// The paths that most runs have.
const (
	// Local is from a container to another one of its node.
	Local Path = "same node"
	// Outside is from a container through the node's SNAT to another host.
	Outside Path = "off node"
)

// Workload is what a connection does, by the name that netperf gave it.
type Workload string

// The workloads.
const (
	TCPRR     Workload = "TCP_RR"
	UDPRR     Workload = "UDP_RR"
	TCPStream Workload = "TCP_STREAM"
	// TCPMaerts is TCP_STREAM towards the client.
	TCPMaerts Workload = "TCP_MAERTS"
	// TCPCRR is TCP_RR with a new connection for every transaction.
	TCPCRR Workload = "TCP_CRR"
	// UDP64 and UDP1400 are datagrams with so many bytes of payload, as fast as
	// they go, to the server. Those count that arrive.
	UDP64   Workload = "UDP_64"
	UDP1400 Workload = "UDP_1400"
)

// Workloads are all of them.
var Workloads = []Workload{TCPRR, TCPCRR, TCPStream, TCPMaerts, UDPRR, UDP64, UDP1400}

// workloads says what the ends of each do.
var workloads = map[Workload]struct {
	network        string
	client, server load.Role
	// size of a datagram's payload, where a workload has one of its own.
	size int
	unit unit
}{
	TCPRR:     {"tcp", load.Ping, load.Echo, 0, transactions},
	UDPRR:     {"udp", load.Ping, load.Echo, 0, transactions},
	TCPCRR:    {"tcp", load.Call, load.Answer, 0, transactions},
	TCPStream: {"tcp", load.Send, load.Receive, 0, octets},
	TCPMaerts: {"tcp", load.Receive, load.Send, 0, octets},
	UDP64:     {"udp", load.Send, load.Receive, 64, datagrams},
	UDP1400:   {"udp", load.Send, load.Receive, 1400, datagrams},
}

// unit is what a workload counts.
type unit string

// The units.
const (
	transactions unit = "transactions"
	octets       unit = "bytes"
	datagrams    unit = "datagrams"
)

// Bulk says whether a workload counts bytes.
func (w Workload) Bulk() bool { return workloads[w].unit == octets }

// Datagrams says whether a workload counts datagrams that arrive.
func (w Workload) Datagrams() bool { return workloads[w].unit == datagrams }

// Placement says which CPUs the two ends of a connection run on.
type Placement string

// The placements.
const (
	// Together pins them to one CPU. Each packet then costs what the way costs
	// and a switch from one process to the other, and no other CPU has to be woken:
	// on a virtual machine that alone takes longer than all the rest.
	Together Placement = "together"
	// Apart pins them to different CPUs.
	Apart Placement = "apart"
	// Free leaves it to the kernel.
	Free Placement = "free"
)

// FlowOptions shape a run that measures connections.
type FlowOptions struct {
	// Zipline is the path of the plugin under test.
	Zipline string
	// Plugins is the directory of the reference plugins; see [Options].
	Plugins string
	// Rounds is the number of paired rounds.
	Rounds int
	// Duration of a measurement, and the Warmup before it, in which the
	// connection comes to its speed and its flow to the path it stays on.
	Duration, Warmup time.Duration
	// Workloads to measure.
	Workloads []Workload
	// Subjects to measure; [Tax] and [Observe] have their own.
	Subjects []Subject
	// Placement of the ends.
	Placement Placement
	// Seed makes the order in a round and the intervals reproducible.
	Seed uint64
	// Progress gets one line per step. Optional.
	Progress io.Writer
}

// lane is a way for a connection from one namespace to another.
type lane struct {
	client, server *os.File
	// to is where the server listens, at this port or, if it is 0, at any.
	to   netip.Addr
	port uint16
	// front is where the client connects to, if something on the way translates
	// that to the server's address and port. Optional.
	front netip.AddrPort
	// peer is the client as the server has to see it.
	peer netip.Addr
	// proof is what shows who carried the packets. Optional.
	proof *proof
}

// flowRun is a run that measures connections.
type flowRun struct {
	session
	opts           FlowOptions
	client, server *agentProcess
	clientCPU      int
	serverCPU      int
	samples        []FlowSample
}

// runFlows carries out a run, and returns its report beside the references.
func runFlows(ctx context.Context, opts FlowOptions, references []Subject, judge func(*FlowReport) []Target, measure func(*flowRun) error) (*FlowReport, error) {
	if opts.Progress == nil {
		opts.Progress = io.Discard
	}
	var report *FlowReport
	err := tbrun.Run(ctx, opts.Progress, func(tb testing.TB) {
		r, err := newFlowRun(tb, opts)
		if err == nil {
			err = measure(r)
		}
		if err != nil {
			tb.Fatal(err)
		}
		report = newFlowReport(opts, references, r.samples, judge)
	})
	return report, err
}

// newFlowRun starts the two processes that are the ends of every connection, so
// that no subject has better places in memory than another one.
func newFlowRun(tb testing.TB, opts FlowOptions) (*flowRun, error) {
	r := &flowRun{session: newSession(tb, opts.Seed, opts.Progress), opts: opts}
	cpus, err := allowedCPUs()
	if err != nil {
		return nil, err
	}
	if r.clientCPU, r.serverCPU, err = opts.Placement.cpus(cpus); err != nil {
		return nil, err
	}
	return r, r.startEnds()
}

// startEnds starts the two processes.
func (r *flowRun) startEnds() (err error) {
	for _, end := range []**agentProcess{&r.client, &r.server} {
		if *end, err = startAgent(r.tb, func(f func() error) error { return f() }); err != nil {
			return err
		}
	}
	return nil
}

// allowedCPUs returns the CPUs that this process may use, in ascending order.
func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("find CPUs: %w", err)
	}
	var cpus []int
	for cpu := 0; len(cpus) < min(set.Count(), runtime.NumCPU()); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// cpus returns where the client and the server run. On a machine with one CPU
// they share it.
func (p Placement) cpus(allowed []int) (client, server int, err error) {
	first, last := allowed[0], allowed[len(allowed)-1]
	switch p {
	case Apart:
		return first, last, nil
	case Together:
		return first, first, nil
	case Free:
		return load.AnyCPU, load.AnyCPU, nil
	default:
		return 0, 0, fmt.Errorf("placement %q is not one of %s, %s, %s", p, Together, Apart, Free)
	}
}

// measure sends a workload along a lane, over so many connections at a time, and
// returns what the end that measures has seen, with the time of both threads. The
// error is one of a path that does not work.
func (r *flowRun) measure(l lane, w Workload, connections int) (load.Measurement, error) {
	kind, known := workloads[w]
	if !known {
		return load.Measurement{}, fmt.Errorf("no such workload: %s", w)
	}
	rep, err := r.server.call(request{Listen: &place{pathOf(l.server), kind.network, netip.AddrPortFrom(l.to, l.port)}})
	if err != nil {
		return load.Measurement{}, fmt.Errorf("server: %w", err)
	}
	end := load.End{Network: kind.network, Connections: connections, Size: kind.size, Warmup: r.opts.Warmup, Duration: r.opts.Duration}
	server, client := end, end
	server.Role, server.CPU = kind.server, r.serverCPU
	client.Role, client.CPU = kind.client, r.clientCPU
	if err := r.server.ask(request{Serve: &server}); err != nil {
		return load.Measurement{}, err
	}
	to := rep.Address
	if l.front.IsValid() {
		to = l.front
	}
	connect := connection{To: place{pathOf(l.client), kind.network, to}, End: client}
	sent, err := r.client.call(request{Connect: &connect})
	if err != nil {
		return load.Measurement{}, fmt.Errorf("client: %w", err)
	}
	served, err := r.server.hear()
	if err != nil {
		return load.Measurement{}, fmt.Errorf("server: %w", err)
	}
	if served.Address.Addr() != l.peer {
		return load.Measurement{}, fmt.Errorf("server was reached from %s, not from %s", served.Address.Addr(), l.peer)
	}
	m, other := sent.Measurement, served.Measurement
	if m.Seconds == 0 {
		m, other = other, m
	}
	m.Thread += other.Thread
	m.User += other.User
	return m, nil
}
