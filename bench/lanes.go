// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// The paths that only a run of cases has.
const (
	// HostPort is from another host to a port of the node, behind which there is
	// a container.
	HostPort Path = "host port"
	// Service is from a container to a service's address, behind which there is
	// another container of its node.
	Service Path = "service"
)

// newWire makes two namespaces joined by a veth pair: a world's node and the host
// outside of it, before anybody has made anything in either. There is one way.
func newWire(tb testing.TB) (map[Path]lane, error) {
	w := testrig.New(tb, testrig.Options{})
	l := lane{to: testrig.OutsideIPv4, peer: testrig.NodeIPv4}
	var err error
	if l.client, err = openNamespace(tb, w.Node.Do); err != nil {
		return nil, err
	}
	if l.server, err = openNamespace(tb, w.Outside.Do); err != nil {
		return nil, err
	}
	return map[Path]lane{Local: l, Outside: l}, nil
}

// newPluginWorld makes a node where a plugin has attached two containers.
func newPluginWorld(tb testing.TB, subject Subject, plugin Plugin) (map[Path]lane, error) {
	w := testrig.New(tb, testrig.Options{PluginPath: filepath.SplitList(plugin.CNIPath), BridgeNetfilter: true})
	a, err := attach(tb, w.Node, plugin, "a")
	if err != nil {
		return nil, err
	}
	b, err := attach(tb, w.Node, plugin, "b")
	if err != nil {
		return nil, err
	}
	outside, err := openNamespace(tb, w.Outside.Do)
	if err != nil {
		return nil, err
	}
	lanes := map[Path]lane{
		Local:   {client: a.namespace, server: b.namespace, to: b.address, peer: a.address},
		Outside: {client: a.namespace, server: outside, to: testrig.InternetIPv4, peer: testrig.NodeIPv4},
	}
	for path, l := range lanes {
		l.proof = newProof(w.Node, subject, path)
		lanes[path] = l
	}
	return lanes, nil
}

// newProof returns what a subject has to show on a path, or nil.
func newProof(node *testrig.Node, subject Subject, path Path) *proof {
	switch {
	case subject == Bridge:
		return nil
	case subject == Kernel:
		return &proof{node, carriedByNone}
	case path == Local:
		// It meets both directions.
		return &proof{node, carriedBy(map[bpf.Hook]int{bpf.HookEndpoint: 2})}
	default:
		return &proof{node, carriedBy(map[bpf.Hook]int{bpf.HookEndpoint: 1, bpf.HookUplink: 1})}
	}
}

// attached is a container with an address.
type attached struct {
	namespace *os.File
	address   netip.Addr
}

// attach makes a container and executes ADD for it.
func attach(tb testing.TB, node *testrig.Node, plugin Plugin, id string) (attached, error) {
	c := node.NewContainer(tb, id)
	inv := c.Invocation("ADD", plugin.Config)
	inv.Plugin = filepath.Base(plugin.Program)
	rep := node.Invoke(tb, inv)
	if err := rep.Err(); err != nil {
		return attached{}, fmt.Errorf("attach %s: %w", id, err)
	}
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal([]byte(rep.Stdout), &result); err != nil {
		return attached{}, fmt.Errorf("attach %s: read result: %w", id, err)
	}
	if len(result.IPs) == 0 {
		return attached{}, fmt.Errorf("attach %s: %w", id, errors.New("result has no address"))
	}
	namespace, err := openNamespace(tb, c.Do)
	return attached{namespace, result.IPs[0].Address.Addr()}, err
}

// openNamespace returns the network namespace in which do calls what it is given.
// It lasts as long as tb.
func openNamespace(tb testing.TB, do func(func() error) error) (file *os.File, err error) {
	err = do(func() (err error) {
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	tb.Cleanup(func() { _ = file.Close() })
	return file, nil
}

// pathOf names an open file for another process of the machine.
func pathOf(file *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()) }
