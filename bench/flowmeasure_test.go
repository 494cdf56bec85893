// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// newTranslatedWire is a wire whose server listens at a port of its own choice,
// while the client knows another one.
func newTranslatedWire(t *testing.T) (*flowRun, lane) {
	t.Helper()
	r, _ := newWireRun(t)
	w := testrig.New(t, testrig.Options{})
	w.Outside.MustRunInput(t, `table ip front {
		chain prerouting {
			type nat hook prerouting priority dstnat
			meta l4proto { tcp, udp } th dport 8080 redirect to :9090
		}
		chain input {
			type filter hook input priority filter
			th dport 9090 ct status and dnat == 0 reject
		}
	}`, "nft", "-f", "-")
	l := lane{to: testrig.OutsideIPv4, port: 9090, front: netip.AddrPortFrom(testrig.OutsideIPv4, 8080), peer: testrig.NodeIPv4}
	var err error
	if l.client, err = openNamespace(t, w.Node.Do); err != nil {
		t.Fatal(err)
	}
	if l.server, err = openNamespace(t, w.Outside.Do); err != nil {
		t.Fatal(err)
	}
	return r, l
}

func TestEveryWorkloadGoesThroughATranslatedAddress(t *testing.T) {
	r, l := newTranslatedWire(t)
	for workload := range workloads {
		for _, connections := range []int{1, 32} {
			t.Run(fmt.Sprintf("%s %d", workload, connections), func(t *testing.T) {
				// Twice, since a port that is given is used again.
				for range 2 {
					if err := r.sample(FlowSample{Workload: workload, Connections: connections}, l); err != nil {
						t.Fatal(err)
					}
				}
				s := r.samples[len(r.samples)-1]
				unit := workloads[workload].unit
				if s.Units < 10 || s.Total <= s.Units || s.Busy <= 0 || s.Threads <= 0 || s.User > s.Threads {
					t.Errorf("sample %+v", s)
				}
				if (s.Latency != nil) != (unit == transactions) {
					t.Errorf("%s have latency %+v", unit, s.Latency)
				}
				if s.Latency != nil && (s.Latency.P50 <= 0 || s.Latency.P99 < s.Latency.P50 || s.Latency.P999 < s.Latency.P99) {
					t.Errorf("latency %+v", s.Latency)
				}
				if (s.Sent > 0) != (unit == datagrams) || unit == datagrams && s.Sent < s.Units+s.Lost {
					t.Errorf("%d %s of %d sent, %d lost", s.Units, unit, s.Sent, s.Lost)
				}
			})
		}
	}
}

func TestConnectionsFromElsewhereAreRefused(t *testing.T) {
	r, l := newTranslatedWire(t)
	l.peer = testrig.InternetIPv4
	for workload := range workloads {
		if _, err := r.measure(l, workload, 2); err == nil || !strings.Contains(err.Error(), "reached from "+testrig.NodeIPv4.String()) {
			t.Errorf("%s from an address that is not the lane's: %v", workload, err)
		}
	}
}
