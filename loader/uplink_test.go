// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// programsOn returns what the kernel says is attached to both sides.
func (n *Node) programsOn(tb testing.TB, index int) (ids []uint32) {
	tb.Helper()
	for _, p := range uplinkPlaces {
		found, err := n.site.attachedIDs(index, p)
		must(tb, err)
		ids = append(ids, found...)
	}
	return ids
}

// enterNodeWithUplinks is enterNode where the kernel has what uplinks are for.
func enterNodeWithUplinks(tb testing.TB) {
	tb.Helper()
	enterNode(tb)
	testutil.RequireKernel(tb, "conntrack functions", HaveConntrack())
}

func (n *Node) uplinkPrograms() []uint32 {
	return []uint32{n.named(fromUplink.program).info.id, n.named(toDevice.program).info.id}
}

func TestAnUplinkHasItsProgramsWhileThereAreEndpoints(t *testing.T) {
	for hook, site := range sites {
		t.Run(hook, func(t *testing.T) {
			enterNodeWithUplinks(t)
			uplink := addDevice(t, 100)
			c := newContainer(t, 1, "10.1.0.1/24")
			node := c.publish(t, site)
			wantError(t, node.UplinkAttached(uplink), ErrDetached)
			for range 2 {
				must(t, node.AttachUplink(uplink, 1400))
				must(t, node.UplinkAttached(uplink))
				if have, want := node.programsOn(t, uplink), node.uplinkPrograms(); !slices.Equal(have, want) {
					t.Errorf("uplink has programs %v, want %v", have, want)
				}
			}
			if v, err := node.uplink(uplink); err != nil || v.Mtu != 1400 {
				t.Errorf("uplink is published as %+v, %v", v, err)
			}
			must(t, node.AttachUplink(uplink, 0))
			if v, err := node.uplink(uplink); err != nil || v.Mtu != 0 {
				t.Errorf("uplink is published as %+v, %v, after its route lost the mtu", v, err)
			}
			must(t, node.ReleaseUplinks())
			must(t, node.UplinkAttached(uplink)) // there is an endpoint
			must(t, node.Delete(c.prefixes[0].Addr(), c.index))
			must(t, node.ReleaseUplinks())
			wantError(t, node.UplinkAttached(uplink), ErrDetached)
			if left := node.programsOn(t, uplink); len(left) > 0 {
				t.Errorf("programs %v are left on the uplink", left)
			}
			if left, err := node.Uplinks(); err != nil || len(left) > 0 {
				t.Errorf("uplinks %v (%v) are left", left, err)
			}
		})
	}
}

func TestAnUplinkThatIsMadeAgainIsCollected(t *testing.T) {
	enterNodeWithUplinks(t)
	first := addDevice(t, 100)
	node := newContainer(t, 1, "10.1.0.1/24").publish(t, Site{})
	must(t, node.AttachUplink(first, 0))
	must(t, netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: first}}))
	second := addDevice(t, 101)
	must(t, node.AttachUplink(second, 0))
	must(t, node.Collect(func(index int) bool { return index != first }))
	if have, err := node.Uplinks(); err != nil || !slices.Equal(have, []int{second}) {
		t.Errorf("uplinks %v (%v), want %d", have, err, second)
	}
	must(t, node.UplinkAttached(second))
	if err := node.AttachUplink(first, 0); !isGone(err) {
		t.Errorf("attach to a device that is gone: %v", err)
	}
}

// A newer version replaces the programs on the uplinks too.
func TestAnUplinkFollowsAReplacement(t *testing.T) {
	for hook, site := range sites {
		t.Run(hook, func(t *testing.T) {
			enterNodeWithUplinks(t)
			uplink := addDevice(t, 100)
			c := newContainer(t, 1, "10.1.0.1/24")
			old := c.publish(t, site)
			must(t, old.AttachUplink(uplink, 0))
			outdate(t, old)
			renewed := mustOpen(t, site, 0)
			if renewed.info.id == old.info.id {
				t.Fatal("nothing was replaced")
			}
			must(t, renewed.UplinkAttached(uplink))
			must(t, renewed.Attached(c.index))
			if have, want := renewed.programsOn(t, uplink), renewed.uplinkPrograms(); !slices.Equal(have, want) {
				t.Errorf("uplink has programs %v, want %v", have, want)
			}
			wantError(t, old.UplinkAttached(uplink), ErrOtherVersion)
		})
	}
}
