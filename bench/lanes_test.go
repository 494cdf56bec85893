// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// newTestRun returns what measures connections for a moment, and the directories of
// the plugins.
func newTestRun(t *testing.T) (*flowRun, []string) {
	t.Helper()
	testutil.RequireRoot(t)
	for _, program := range []string{"iptables", "nft"} {
		testutil.RequireProgram(t, program)
	}
	r, err := newFlowRun(t, FlowOptions{Warmup: 40 * time.Millisecond, Duration: 80 * time.Millisecond, Placement: Together})
	if err != nil {
		t.Fatal(err)
	}
	return r, pluginDirs(t, reference.BuildZipline(t), reference.Plugins(t))
}

func TestEveryDefaultCaseWorksOnItsPaths(t *testing.T) {
	r, dirs := newTestRun(t)
	cases, err := DefaultCases()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(string(c.Name), func(t *testing.T) {
			s, err := newSite(t, c, dirs)
			if err != nil {
				t.Fatal(err)
			}
			for _, in := range cells(Paths, []Workload{TCPRR, TCPCRR, TCPStream, UDP64}, 1) {
				if !c.takesPart(in) {
					continue
				}
				if !s.has(in.path) {
					t.Errorf("no way %s", in.path)
					continue
				}
				err := r.sample(FlowSample{Path: in.path, Workload: in.workload, Subject: c.Name, Connections: 1}, s.lane(in))
				if err != nil {
					t.Errorf("%s: %v", in, err)
					continue
				}
				sample := r.samples[len(r.samples)-1]
				carries := c.Carried == CarrierNeighbours && in.path == Local || c.Carried != CarrierKernel && c.Carried != "" && !in.workload.fleeting()
				if sample.Units == 0 || sample.Invalid != "" || carries != (sample.Carried >= 0.9) {
					t.Errorf("%s: %d units, share of eBPF %.3f, %q", in, sample.Units, sample.Carried, sample.Invalid)
				}
			}
		})
	}
}

// Neighbours' replies that are bridged past netfilter come from an address that
// nobody has called: the way is refused, not measured as something else.
func TestServiceOfABridgeWithoutNetfilterDoesNotWork(t *testing.T) {
	r, dirs := newTestRun(t)
	c := mustParseCase(t, "bridge-nf0")
	s, err := newSite(t, c, dirs)
	if err != nil {
		t.Fatal(err)
	}
	in := cell{Service, TCPRR, 1, 1}
	if err := r.sample(FlowSample{Path: in.path, Workload: in.workload, Connections: 1}, s.lane(in)); err == nil {
		t.Errorf("a service of a bridge without br_netfilter works: %+v", r.samples)
	}
}

func TestNodeForgetsCallsSoon(t *testing.T) {
	_, dirs := newTestRun(t)
	s, err := newSite(t, mustParseCase(t, "bridge"), dirs)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := s.world.Node.Sysctl(t, "netfilter/nf_conntrack_tcp_timeout_time_wait"); got != "10" {
		t.Errorf("a closed connection is known for %q seconds", got)
	}
}

func TestACaseThatCannotBeBuiltSaysWhy(t *testing.T) {
	_, dirs := newTestRun(t)
	for _, c := range []struct{ name, from, to, want string }{
		{"a plugin is missing", `"portmap"`, `"portmop"`, `failed to find plugin "portmop"`},
		{"an IPAM plugin is missing", `"host-local"`, `"host-global"`, `failed to find plugin "host-global"`},
		{"a plugin fails", `10.64.0.0/16`, `10.64.0.0/31`, "attach client"},
	} {
		of := mustParseCase(t, "bridge", c.from, c.to)
		if _, err := newSite(t, of, dirs); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}

func TestHostPortNeedsAPluginThatPublishes(t *testing.T) {
	_, dirs := newTestRun(t)
	s, err := newSite(t, mustParseCase(t, "bridge", `"portMappings": true`, `"ips": true`), dirs)
	if err != nil {
		t.Fatal(err)
	}
	if s.has(HostPort) || !s.has(Local) {
		t.Errorf("ways %v", s.lanes)
	}
}

// mustParseCase returns a default case with something replaced in its file's text.
func mustParseCase(t *testing.T, name string, replace ...string) Case {
	t.Helper()
	entries, err := caseFiles.ReadDir("cases")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := caseFiles.ReadFile("cases/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `"name": "`+name+`",`) {
			continue
		}
		if len(replace) == 2 {
			text = []byte(strings.Replace(string(text), replace[0], replace[1], 1))
		}
		c, err := ParseCase(text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Fatalf("no case %q", name)
	return Case{}
}
