// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath/nat"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// TestElementsStayWithADeviceThatStays takes down lo, which cannot be deleted, and
// then the same as if it were gone.
func TestElementsStayWithADeviceThatStays(t *testing.T) {
	testutil.RequireRoot(t)
	owner := nat.Owner{Device: "lo", Network: "net", ContainerID: "one", IfName: "eth0"}
	addresses := []netip.Addr{netip.MustParseAddr("10.1.0.2")}
	err := testrig.New(t, testrig.Options{}).Node.Do(func() error {
		return withRuleset(func(rules *nat.Ruleset) error {
			source := nat.Source{Address: addresses[0], Subnet: netip.MustParsePrefix("10.1.0.0/16")}
			if err := errors.Join(rules.Install(), rules.Add(owner, []nat.Source{source}, nat.Options{})); err != nil {
				return err
			}
			lo, err := deviceIndex("lo")
			if err != nil {
				return err
			}
			for _, step := range []struct {
				index, left int
				want        error
			}{{lo, 2, unix.EOPNOTSUPP}, {0, 0, nil}} {
				device := make(chan error, 1)
				if err := takeDown(owner, step.index, addresses, device); err != nil {
					return err
				}
				if err := <-device; !errors.Is(err, step.want) {
					t.Errorf("device %d: %v, want %v", step.index, err, step.want)
				}
				owned, err := rules.Owned()
				if err != nil {
					return err
				}
				if len(owned) != step.left {
					t.Errorf("device %d: left: %v, want %d", step.index, owned, step.left)
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestARemovalOfNothingSwitchesNothing looks for the note that whoever sets
// rcu_expedited makes.
func TestARemovalOfNothingSwitchesNothing(t *testing.T) {
	testutil.RequireRoot(t)
	const note = "/run/zipline/rcu"
	err := testrig.New(t, testrig.Options{}).Node.Do(func() error {
		owner, device := nat.Owner{Device: "zlnone", Network: "net"}, make(chan error, 2)
		if err := takeDown(owner, 0, nil, device); err != nil {
			return err
		}
		if _, err := os.Stat(note); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("nothing to remove: %v", err)
		}
		if err := takeDown(owner, 0, []netip.Addr{netip.MustParseAddr("10.1.0.2")}, device); err != nil {
			return err
		}
		_, err := os.Stat(note)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
