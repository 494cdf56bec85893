// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// A packet of more than the uplink's limit is segmented in software there, which
// costs far more than big packets gain (gso_features_check in net/core/dev.c).
func TestBigTCPKeepsTheLimitOfTheUplink(t *testing.T) {
	top := newTopology(t, kernelTier, testrig.Options{})
	p := top.attach(network{})
	limit := func(ns *testrig.Namespace, device string) (limit uint32) {
		err := ns.Do(func() error {
			link, err := netlink.LinkByName(device)
			if err == nil {
				limit = link.Attrs().GSOIPv4MaxSize
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return limit
	}
	if own, uplink := limit(&p.Namespace, testrig.IfName), limit(&top.Node.Namespace, testrig.Uplink); own > uplink {
		t.Errorf("the container sends packets of %d bytes, the uplink takes %d", own, uplink)
	}
}
