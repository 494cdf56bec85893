// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// The subjects of a run of [Tax]: one node, with the programs on its uplink and
// without them. All else that the plugin makes is there in both.
const (
	WithPrograms Subject = "with"
	Without      Subject = "without"
)

// The paths of [Tax].
const (
	// Host is from the node itself to another host.
	Host Path = "host"
	// Forwarded is through the node, from a namespace that the plugin under
	// test knows nothing of, to another host.
	Forwarded Path = "forwarded"
)

// Addresses of the pair that joins the node to the namespace.
const (
	strangerSubnet = "203.0.113.0/24"
	strangerNode   = "203.0.113.1"
	strangerIPv4   = "203.0.113.2"
)

// DefaultTaxOptions are those of the project's targets.
func DefaultTaxOptions() FlowOptions {
	return FlowOptions{
		Rounds: 100, Duration: 400 * time.Millisecond, Warmup: 100 * time.Millisecond,
		Workloads: []Workload{TCPRR, TCPStream, TCPMaerts, UDPRR},
		Subjects:  []Subject{WithPrograms, Without},
		Placement: Together, Seed: 1,
	}
}

// Tax measures what the programs on a node's uplink cost those who have nothing
// of them, and returns its report. The programs are taken off the uplink for one
// half of each pair: whatever else there is of the node is the same in both, down
// to the places in memory. It needs root and a kernel with TCX (Linux 6.6).
func Tax(ctx context.Context, opts FlowOptions) (*FlowReport, error) {
	opts.Subjects = []Subject{WithPrograms, Without}
	return runFlows(ctx, opts, []Subject{Without}, taxTargets, (*flowRun).measureTax)
}

func (r *flowRun) measureTax() error {
	s, err := newTrackedSite(r.tb, r.opts)
	if err != nil {
		return err
	}
	w := s.world
	lanes, err := taxLanes(r.tb, w)
	if err != nil {
		return err
	}
	programs, err := findPrograms(r.tb, w.Node, testrig.Uplink)
	if err != nil {
		return err
	}
	if len(programs.attached) == 0 {
		return errors.New("the plugin has attached no program to the uplink by TCX: there is no tax to measure")
	}
	r.progress(fmt.Sprintf("%d programs on the uplink", len(programs.attached)))
	return r.pairs([]Path{Host, Forwarded}, func(e entrant, c cell) (lane, error) {
		l, with := lanes[c.path], e.subject == WithPrograms
		l.proof = &proof{w.Node, taxedBy(bpf.HookUplink, with)}
		return l, programs.set(with)
	})
}

// taxLanes joins another namespace to the node and returns the ways to the
// outside.
func taxLanes(tb testing.TB, w *testrig.World) (map[Path]lane, error) {
	stranger := w.Node.NewContainer(tb, "stranger")
	w.Node.MustRun(tb, "ip", "link", "add", "stranger", "type", "veth", "peer", "name", IfName, "netns", stranger.Path)
	w.Node.MustRunInput(tb, fmt.Sprintf("link set stranger up\naddr add %s/24 dev stranger\n", strangerNode), "ip", "-batch", "-")
	stranger.MustRunInput(tb, fmt.Sprintf("link set %s up\naddr add %s/24 dev %s\nroute add default via %s\n",
		IfName, strangerIPv4, IfName, strangerNode), "ip", "-batch", "-")
	w.Outside.MustRun(tb, "ip", "route", "add", strangerSubnet, "via", testrig.NodeIPv4.String())
	lanes := map[Path]lane{
		Host:      {to: testrig.InternetIPv4, peer: testrig.NodeIPv4},
		Forwarded: {to: testrig.InternetIPv4, peer: netip.MustParseAddr(strangerIPv4)},
	}
	for path, do := range map[Path]func(func() error) error{Host: w.Node.Do, Forwarded: stranger.Do} {
		l := lanes[path]
		var err error
		if l.client, err = openNamespace(tb, do); err != nil {
			return nil, err
		}
		if l.server, err = openNamespace(tb, w.Outside.Do); err != nil {
			return nil, err
		}
		lanes[path] = l
	}
	return lanes, nil
}
