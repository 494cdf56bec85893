// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestBigPacketsPassTheStack sends bulk through the node's stack with the default
// configuration. An IPv6 packet above 64 KiB has a header that ip6_forward counts
// to each of its segments: it calls them too big, and the flow crawls.
func TestBigPacketsPassTheStack(t *testing.T) {
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			pods := top.attachAll(network{}, 2)
			for _, f := range families {
				top.publish(t, f, f.addr(pods[0]))
				for _, w := range ways {
					from, to := w.ends(top, pods)
					server := to.ServeTCP(t, netip.AddrPortFrom(w.listen(f, pods), nextPort()))
					if err := from.Bulk(netip.AddrPortFrom(w.dial(f, pods), server.Addr.Port()), 4<<20); err != nil {
						t.Errorf("%s %s: %v", f.name, w.name, err)
					}
					server.Close()
				}
			}
			errors := top.Node.MustRun(t, "sh", "-c", "grep -E '^(Ip6FragFails|Icmp6OutPktTooBigs)' /proc/thread-self/net/snmp6")
			for line := range strings.Lines(errors) {
				if fields := strings.Fields(line); fields[1] != "0" {
					t.Errorf("the node refused packets of its containers' bulk flows: %s %s", fields[0], fields[1])
				}
			}
		})
	}
}
