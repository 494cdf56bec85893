// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/invoke"

	"github.com/zipline-cni/zipline/internal/reference"
)

// systemPath is the PATH that plugins see, as under a service manager.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// config is the network configuration of both plugins, less its type. Where a key has no meaning for one of them, it has to
// cost that one nothing.
const config = `{"cniVersion":"1.0.0","name":"bench","type":%q,"bridge":"bench0","isGateway":true,` +
	`"ipMasq":true,"ipMasqBackend":"iptables",` +
	`"ipam":{"type":"host-local","subnet":"10.64.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}`

// newPlugins says how each subject of [Attach] is executed: the plugin under test,
// and those of a directory.
func newPlugins(tb testing.TB, program, dir string) map[Subject]Plugin {
	tb.Helper()
	dirs := pluginDirs(tb, program, dir)
	plugin := func(name string) Plugin {
		found, err := invoke.FindInPath(name, dirs)
		if err != nil {
			tb.Fatal(fmt.Errorf("find plugin: %w", err))
		}
		return Plugin{
			Program: found, CNIPath: strings.Join(dirs, string(filepath.ListSeparator)), Path: systemPath,
			Config: fmt.Sprintf(config, name),
		}
	}
	return map[Subject]Plugin{Zipline: plugin("zipline"), Control: plugin("zipline"), Bridge: plugin("bridge")}
}

// pluginDirs returns where plugins are found by their types: the one under test in
// a directory of its own, whatever its file is called, and the reference plugins in
// a directory that is made where its name is empty.
func pluginDirs(tb testing.TB, program, dir string) []string {
	tb.Helper()
	if dir == "" {
		dir = reference.Plugins(tb)
	}
	// A node's programs do not run where this one does.
	program, err := filepath.Abs(program)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	own := tb.TempDir()
	if err == nil {
		err = os.Symlink(program, filepath.Join(own, "zipline"))
	}
	if err != nil {
		tb.Fatal(fmt.Errorf("find plugin: %w", err))
	}
	return []string{own, dir}
}
