// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// Runtime executes whole network configuration lists with libcni, as container
// runtimes do, and keeps its result cache.
type Runtime struct {
	cni      *libcni.CNIConfig
	list     *libcni.NetworkConfigList
	cacheDir string
}

// NewRuntime returns a runtime of the node for a configuration: a list of
// plugins, or a single plugin's.
func NewRuntime(tb testing.TB, n *Node, config string) *Runtime {
	tb.Helper()
	list, err := parseList([]byte(config))
	if err != nil {
		tb.Fatal(err)
	}
	cacheDir := tb.TempDir()
	return &Runtime{
		cni:      libcni.NewCNIConfigWithCacheDir(filepath.SplitList(n.pluginPath), cacheDir, &nodeExec{tb: tb, node: n}),
		list:     list,
		cacheDir: cacheDir,
	}
}

// CacheDir returns the directory of libcni's cache, outside of the node.
func (r *Runtime) CacheDir() string { return r.cacheDir }

// Add executes ADD of every plugin for the container. capabilities become
// runtimeConfig where a plugin declares them. The error is the plugin's
// *types.Error where it printed one.
func (r *Runtime) Add(c *Container, capabilities map[string]any) (*types100.Result, error) {
	result, err := r.cni.AddNetworkList(context.Background(), r.list, runtimeConf(c, capabilities))
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(result)
}

// Check executes CHECK of every plugin with the cached result.
func (r *Runtime) Check(c *Container, capabilities map[string]any) error {
	return r.cni.CheckNetworkList(context.Background(), r.list, runtimeConf(c, capabilities))
}

// Del executes DEL of every plugin in reverse order with the cached result.
func (r *Runtime) Del(c *Container, capabilities map[string]any) error {
	return r.cni.DelNetworkList(context.Background(), r.list, runtimeConf(c, capabilities))
}

// GC executes GC with the containers that are to stay.
func (r *Runtime) GC(valid ...*Container) error {
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for _, c := range valid {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: c.ID, IfName: IfName})
	}
	return r.cni.GCNetworkList(context.Background(), r.list, args)
}

// CNIVersion returns the version that the configuration says.
func (r *Runtime) CNIVersion() string { return r.list.CNIVersion }

func runtimeConf(c *Container, capabilities map[string]any) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: c.ID, NetNS: c.Path, IfName: IfName, CapabilityArgs: maps.Clone(capabilities),
	}
}

func parseList(config []byte) (*libcni.NetworkConfigList, error) {
	var probe struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(config, &probe); err != nil {
		return nil, fmt.Errorf("parse network configuration: %w", err)
	}
	if probe.Plugins != nil {
		return libcni.NetworkConfFromBytes(config)
	}
	conf, err := libcni.NetworkPluginConfFromBytes(config)
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromConf(conf)
}

// nodeExec executes the plugins of libcni inside the node.
type nodeExec struct {
	version.PluginDecoder
	tb   testing.TB
	node *Node
}

var _ invoke.Exec = (*nodeExec)(nil)

// FindInPath implements [invoke.Exec].
func (e *nodeExec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin implements [invoke.Exec].
func (e *nodeExec) ExecPlugin(_ context.Context, program string, stdin []byte, environ []string) ([]byte, error) {
	// The rest of environ is the test's own.
	environ = slices.DeleteFunc(environ, func(v string) bool { return !strings.HasPrefix(v, "CNI_") })
	reply := e.node.Invoke(e.tb, Invocation{
		Plugin: filepath.Base(program), Config: string(stdin), Env: environ,
	})
	return []byte(reply.Stdout), reply.Err()
}

// Addresses returns the addresses of a result, in its order.
func Addresses(result *types100.Result) []netip.Addr {
	var addrs []netip.Addr
	for _, ip := range result.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}
