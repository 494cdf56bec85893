// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// runner executes plugins for libcni inside the node and notes how long each
// took, from the process's start to its end.
type runner struct {
	version.PluginDecoder
	tb   testing.TB
	node *testrig.Node
	took map[string]time.Duration
}

var _ invoke.Exec = (*runner)(nil)

// FindInPath implements [invoke.Exec].
func (*runner) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin implements [invoke.Exec].
func (r *runner) ExecPlugin(_ context.Context, program string, stdin []byte, environ []string) ([]byte, error) {
	// The rest of environ is this process's own.
	environ = slices.DeleteFunc(environ, func(v string) bool { return !strings.HasPrefix(v, "CNI_") })
	name := filepath.Base(program)
	reply := r.node.Invoke(r.tb, testrig.Invocation{Plugin: name, Config: string(stdin), Env: environ})
	r.took[name] = reply.Elapsed
	return []byte(reply.Stdout), reply.Err()
}

// add attaches a container by every plugin of the list and returns their times.
func (d *demo) add(p *pod) (map[string]time.Duration, *types100.Result, error) {
	d.runner.took = map[string]time.Duration{}
	result, err := d.cni.AddNetworkList(d.tb.Context(), d.list, p.runtimeConf())
	if err != nil {
		return nil, nil, err
	}
	converted, err := types100.NewResultFromResult(result)
	return d.runner.took, converted, err
}

// del detaches it.
func (d *demo) del(p *pod) (map[string]time.Duration, error) {
	d.runner.took = map[string]time.Duration{}
	err := d.cni.DelNetworkList(d.tb.Context(), d.list, p.runtimeConf())
	return d.runner.took, err
}

func (p *pod) runtimeConf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: p.ID, NetNS: p.Path, IfName: testrig.IfName}
}
