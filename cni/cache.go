// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/zipline-cni/zipline/datapath"
)

// cacheKind marks a file of libcni's cache (libcni's CNICacheV1).
const cacheKind = "cniCacheV1"

// cachedCall is a file of libcni's cache (libcni's cachedInfo).
type cachedCall struct {
	Kind           string          `json:"kind"`
	ContainerID    string          `json:"containerId"`
	Config         []byte          `json:"config"`
	IfName         string          `json:"ifName"`
	NetworkName    string          `json:"networkName"`
	NetNS          string          `json:"netns"`
	CNIArgs        [][2]string     `json:"cniArgs"`
	CapabilityArgs map[string]any  `json:"capabilityArgs"`
	Result         json.RawMessage `json:"result"`
}

// CachedSpecs reads libcni's cache, in which it keeps what ADD was called with and
// what came of it (/var/lib/cni, unless a runtime says otherwise), and returns what each attachment of zipline's
// should be, by host veth. It is what ADD was told, with the result of the whole
// chain: what a CHECK would compare with. A directory that is missing has none.
// Files that cannot be used are left out and named in the error.
func CachedSpecs(cacheDir string) (map[string]*datapath.Spec, error) {
	dir := filepath.Join(cacheDir, "results")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cache of results: %w", err)
	}
	specs := map[string]*datapath.Spec{}
	var errs []error
	for _, entry := range entries {
		spec, err := cachedSpec(filepath.Join(dir, entry.Name()))
		if err != nil {
			errs = append(errs, fmt.Errorf("cached result %s: %w", entry.Name(), err))
		}
		if spec != nil {
			specs[spec.Device()] = spec
		}
	}
	return specs, errors.Join(errs...)
}

// cachedSpec returns nil for what is no attachment of ours.
func cachedSpec(path string) (*datapath.Spec, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // DEL came between
	}
	if err != nil {
		return nil, err
	}
	var call cachedCall
	if err := json.Unmarshal(data, &call); err != nil {
		return nil, err
	}
	if call.Kind != cacheKind {
		return nil, nil
	}
	stdin, err := call.stdin()
	if stdin == nil || err != nil {
		return nil, err
	}
	args := &skel.CmdArgs{ContainerID: call.ContainerID, Netns: call.NetNS, IfName: call.IfName, Args: call.args(), StdinData: stdin}
	c, err := ParseConfig(stdin, args.Args)
	if err != nil {
		return nil, err
	}
	prev, err := prevResult(c)
	if err != nil || prev == nil {
		return nil, err
	}
	return specOfResult(c, args, prev)
}

// stdin returns the configuration of zipline as libcni would hand it to CHECK,
// nil where it is not in the list.
func (call *cachedCall) stdin() ([]byte, error) {
	var list struct {
		CNIVersion string                       `json:"cniVersion"`
		Name       string                       `json:"name"`
		Plugins    []map[string]json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(call.Config, &list); err != nil {
		return nil, err
	}
	plugins := list.Plugins
	if plugins == nil { // a single plugin's configuration
		plugins = make([]map[string]json.RawMessage, 1)
		if err := json.Unmarshal(call.Config, &plugins[0]); err != nil {
			return nil, err
		}
	}
	for _, plugin := range plugins {
		if string(plugin["type"]) != `"zipline"` {
			continue
		}
		stdin := maps.Clone(plugin)
		for key, value := range map[string]any{"cniVersion": list.CNIVersion, "name": call.NetworkName, "runtimeConfig": call.runtimeConfig(plugin)} {
			raw, err := json.Marshal(value)
			if err != nil {
				return nil, err
			}
			stdin[key] = raw
		}
		stdin["prevResult"] = call.Result
		return json.Marshal(stdin)
	}
	return nil, nil
}

// runtimeConfig has the capabilities that the plugin declares.
func (call *cachedCall) runtimeConfig(plugin map[string]json.RawMessage) map[string]any {
	var capabilities map[string]bool
	_ = json.Unmarshal(plugin["capabilities"], &capabilities) // none is none
	config := map[string]any{}
	for name, wanted := range capabilities {
		if value, ok := call.CapabilityArgs[name]; ok && wanted {
			config[name] = value
		}
	}
	return config
}

func (call *cachedCall) args() string {
	pairs := make([]string, 0, len(call.CNIArgs))
	for _, pair := range call.CNIArgs {
		pairs = append(pairs, pair[0]+"="+pair[1])
	}
	return strings.Join(pairs, ";")
}
