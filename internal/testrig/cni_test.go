// SPDX-License-Identifier: Apache-2.0

package testrig_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

const bridgeConf = `{"cniVersion":"1.0.0","name":"rig","type":"bridge","bridge":"rig0","isDefaultGateway":true,"ipMasq":true,
 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"fd00:1:2::/64"}]]}}`

func newBridgeWorld(t *testing.T) *testrig.World {
	t.Helper()
	// Plugins is slow the first time: ask for root before.
	testutil.RequireRoot(t)
	testutil.RequireProgram(t, "iptables")
	return testrig.New(t, testrig.Options{PluginPath: []string{reference.Plugins(t)}})
}

func TestRuntimeAttachesContainersThatReachEachOther(t *testing.T) {
	w := newBridgeWorld(t)
	rt := testrig.NewRuntime(t, w.Node, bridgeConf)
	c1, c2 := w.Node.NewContainer(t, "c1"), w.Node.NewContainer(t, "c2")
	for _, c := range []*testrig.Container{c1, c2} {
		if _, err := rt.Add(c, nil); err != nil {
			t.Fatal(err)
		}
		if err := rt.Check(c, nil); err != nil {
			t.Error(err)
		}
	}
	c1.MustRun(t, "ping", "-n", "-c1", "-W1", "10.1.2.3")
	c1.MustRun(t, "ping", "-n", "-c1", "-W1", "fd00:1:2::3")
	if err := rt.Del(c1, nil); err != nil {
		t.Error(err)
	}
	if _, err := c2.Run("ping", "-n", "-c1", "-W1", "10.1.2.2"); err == nil {
		t.Error("a deleted container still answers")
	}
}

func TestInvokeReportsErrorObjectTimeAndMemory(t *testing.T) {
	w := newBridgeWorld(t)
	c := w.Node.NewContainer(t, "c1")
	reply := c.Invoke(t, "ADD", `{"cniVersion":"1.0.0","type":"bridge"}`)
	var object *types.Error
	if !errors.As(reply.Err(), &object) || object.Code != types.ErrInvalidNetworkConfig {
		t.Errorf("ADD without a name: %v; want code %d", reply.Err(), types.ErrInvalidNetworkConfig)
	}
	if reply.Elapsed <= 0 || reply.MaxRSS < 1<<20 {
		t.Errorf("elapsed %v, memory %d bytes: not measured", reply.Elapsed, reply.MaxRSS)
	}
}

func TestInvokeKillsInTime(t *testing.T) {
	w := newBridgeWorld(t)
	inv := w.Node.NewContainer(t, "c1").Invocation("ADD", bridgeConf)
	inv.KillAfter = time.Millisecond
	if reply := w.Node.Invoke(t, inv); reply.ExitCode != -1 || reply.Err() == nil {
		t.Errorf("exit code %d, error %v; want a killed process", reply.ExitCode, reply.Err())
	}
}

func TestResultAddressesAreUsable(t *testing.T) {
	w := newBridgeWorld(t)
	result, err := testrig.NewRuntime(t, w.Node, bridgeConf).Add(w.Node.NewContainer(t, "c1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := testrig.Addresses(result)[0], netip.MustParseAddr("10.1.2.2"); got != want {
		t.Errorf("first address %s; want %s", got, want)
	}
}
