// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"

	"github.com/zipline-cni/zipline/datapath/nat"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// TestElementsOfADeviceMadeSinceTheListStay is a GC beside an ADD.
func TestElementsOfADeviceMadeSinceTheListStay(t *testing.T) {
	testutil.RequireRoot(t)
	node := testrig.New(t, testrig.Options{}).Node
	node.MustRun(t, "ip", "link", "add", "zlnew", "type", "veth", "peer", "name", "new")
	err := node.Do(func() error {
		return withRuleset(func(rules *nat.Ruleset) error {
			if err := rules.Install(); err != nil {
				return err
			}
			for device, address := range map[string]string{"zlnew": "10.1.0.2", "zldead": "10.1.0.3"} {
				owner := nat.Owner{Device: device, Network: "net", ContainerID: device, IfName: "eth0"}
				source := nat.Source{Address: netip.MustParseAddr(address), Subnet: netip.MustParsePrefix("10.1.0.0/16")}
				if err := rules.Add(owner, []nat.Source{source}, nat.Options{}); err != nil {
					return err
				}
			}
			if err := collectElements("net", deviceGone); err != nil {
				return err
			}
			owned, err := rules.Owned()
			for _, o := range owned {
				if o.Owner.Device != "zlnew" || o.Address != netip.MustParseAddr("10.1.0.2") {
					t.Errorf("left: %v", o)
				}
			}
			if len(owned) != 2 { // translated, and its own
				t.Errorf("left: %v, want 2", owned)
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}
