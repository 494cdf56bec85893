// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// steerWorld is a node whose containers the real plugin attaches, and on which
// the real ziplinectl runs.
type steerWorld struct {
	*testrig.World
	tb   testing.TB
	path string
	made int
}

func newSteerWorld(tb testing.TB) *steerWorld {
	tb.Helper()
	testutil.RequireRoot(tb)
	w := &steerWorld{tb: tb, path: buildCtl(tb)}
	w.World = testrig.New(tb, testrig.Options{PluginPath: []string{reference.Plugins(tb), filepath.Dir(reference.BuildZipline(tb))}})
	return w
}

// ctl runs ziplinectl in the node.
func (w *steerWorld) ctl(args ...string) (string, error) { return w.Node.Run(w.path, args...) }

func (w *steerWorld) mustCtl(args ...string) string {
	w.tb.Helper()
	out, err := w.ctl(args...)
	if err != nil {
		w.tb.Fatalf("ziplinectl %v: %v", args, err)
	}
	return out
}

// ctlJSON runs ziplinectl and decodes what it prints.
func (w *steerWorld) ctlJSON(v any, args ...string) {
	w.tb.Helper()
	out := w.mustCtl(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.tb.Fatalf("ziplinectl %v: %v\n%s", args, err, out)
	}
}

// steerConfig returns a network configuration with these keys added.
func steerConfig(keys map[string]any) string {
	conf := map[string]any{
		"cniVersion": "1.1.0", "name": "net", "type": "zipline", "bridge": "seg0", "isDefaultGateway": true, "ipMasq": true,
		"ipam": map[string]any{"type": "host-local", "ranges": [][]map[string]string{{{"subnet": "10.77.0.0/24"}}, {{"subnet": "fd00:77::/64"}}}},
	}
	maps.Copy(conf, keys)
	text, err := json.Marshal(conf)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// steerPod is an attached container.
type steerPod struct {
	*testrig.Container
	runtime *testrig.Runtime
	device  string
	v4, v6  netip.Addr
}

// attach makes a container and attaches it, with libcni's cache of results or
// without.
func (w *steerWorld) attach(config string, cached bool) *steerPod {
	w.tb.Helper()
	if cached {
		return w.attachBy(testrig.NewRuntime(w.tb, w.Node, config))
	}
	c := w.container()
	reply := c.Invoke(w.tb, "ADD", config)
	if err := reply.Err(); err != nil {
		w.tb.Fatalf("add %s: %v\n%s", c.ID, err, reply.Stderr)
	}
	result := new(types100.Result)
	if err := json.Unmarshal([]byte(reply.Stdout), result); err != nil {
		w.tb.Fatal(err)
	}
	return newSteerPod(c, result)
}

// attachBy is attach with a runtime that has a cache.
func (w *steerWorld) attachBy(runtime *testrig.Runtime) *steerPod {
	w.tb.Helper()
	c := w.container()
	result, err := runtime.Add(c, nil)
	if err != nil {
		w.tb.Fatalf("add %s: %v", c.ID, err)
	}
	p := newSteerPod(c, result)
	p.runtime = runtime
	return p
}

func (w *steerWorld) container() *testrig.Container {
	w.tb.Helper()
	w.made++
	return w.Node.NewContainer(w.tb, fmt.Sprintf("c%d", w.made))
}

func newSteerPod(c *testrig.Container, result *types100.Result) *steerPod {
	p := &steerPod{Container: c, device: result.Interfaces[1].Name}
	for _, addr := range testrig.Addresses(result) {
		if addr.Is4() {
			p.v4 = addr
		} else {
			p.v6 = addr
		}
	}
	return p
}

// newStream begins a stream of datagrams between two namespaces.
func newStream(tb testing.TB, from, to *testrig.Namespace, dst netip.AddrPort) *testutil.Stream {
	tb.Helper()
	var in *net.UDPConn
	err := to.Do(func() (err error) {
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(dst))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	out, err := from.Dial("udp", dst, testrig.Socket{})
	if err != nil {
		tb.Fatal(err)
	}
	if err := out.SetDeadline(time.Time{}); err != nil {
		tb.Fatal(err)
	}
	return testutil.NewStream(tb, in, out)
}
