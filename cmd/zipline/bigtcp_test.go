// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

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
			top.publishAll(t, pods[0])
			for _, f := range families {
				for _, w := range ways {
					from, to := w.ends(top, pods)
					server := to.ServeTCP(t, netip.AddrPortFrom(w.listen(f, pods), nextPort()))
					if err := from.Bulk(netip.AddrPortFrom(w.dial(f, pods), server.Addr.Port()), 4<<20); err != nil {
						t.Errorf("%s %s: %v", f.name, w.name, err)
					}
					server.Close()
				}
			}
			refused := top.Node.MustRun(t, "sh", "-c", "grep -E '^(Ip6FragFails|Icmp6OutPktTooBigs)' /proc/thread-self/net/snmp6")
			for line := range strings.Lines(refused) {
				if fields := strings.Fields(line); fields[1] != "0" {
					t.Errorf("the node refused packets of its containers' bulk flows: %s %s", fields[0], fields[1])
				}
			}
		})
	}
}

// TestBigTCPKeepsTheLimitOfTheUplink: a packet of more than that is segmented in
// software there, which costs far more than big packets gain (gso_features_check
// in net/core/dev.c).
func TestBigTCPKeepsTheLimitOfTheUplink(t *testing.T) {
	for _, limit := range []uint32{64 << 10, 128 << 10} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, kernelTier, testrig.Options{})
			top.requireBigTCP(t)
			err := top.Node.Do(func() error {
				uplink, err := netlink.LinkByName(testrig.Uplink)
				if err != nil {
					return err
				}
				return errors.Join(netlink.LinkSetGSOIPv4MaxSize(uplink, int(limit)), netlink.LinkSetGROIPv4MaxSize(uplink, int(limit)))
			})
			if err != nil {
				t.Fatal(err)
			}
			err = top.attach(network{}).Do(func() error {
				own, err := netlink.LinkByName(testrig.IfName)
				if err == nil && own.Attrs().GSOIPv4MaxSize != limit {
					t.Errorf("the container sends packets of %d bytes, the uplink takes %d", own.Attrs().GSOIPv4MaxSize, limit)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
