// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/zipline-cni/zipline/internal/reference"
)

// systemPath is the PATH that plugins see, as under a service manager.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// config is the network configuration of both plugins, less its type and the keys
// that only one of them has. Where a key has no meaning for one of them, it has to
// cost that one nothing.
const config = `{"cniVersion":"1.0.0","name":"bench","type":%q,%s"bridge":"bench0","isGateway":true,` +
	`"ipMasq":true,"ipMasqBackend":"iptables",` +
	`"ipam":{"type":"host-local","subnet":"10.64.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}`

// newPlugins says how each subject is executed: the plugin under test, and those
// of a directory, which is made where its name is empty.
func newPlugins(tb testing.TB, program, dir string) map[Subject]Plugin {
	tb.Helper()
	if dir == "" {
		dir = reference.Plugins(tb)
	}
	// A node's programs do not run where this one does.
	for _, path := range []*string{&program, &dir} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			tb.Fatal(fmt.Errorf("find plugin: %w", err))
		}
		*path = absolute
	}
	bridge := Plugin{
		Program: filepath.Join(dir, "bridge"), CNIPath: dir, Path: systemPath,
		Config: fmt.Sprintf(config, "bridge", ""),
	}
	zipline := func(keys string) Plugin {
		return Plugin{
			Program: program, CNIPath: filepath.Dir(program) + ":" + dir, Path: systemPath,
			Config: fmt.Sprintf(config, "zipline", keys),
		}
	}
	// With packets no larger than those of the wire and of the bridge, so that
	// the ways are compared and nothing else.
	forwarding := func(mode string) Plugin { return zipline(fmt.Sprintf(`"forwarding":%q,"bigTCP":"off",`, mode)) }
	for _, p := range []Plugin{bridge, zipline("")} {
		if _, err := os.Stat(p.Program); err != nil {
			tb.Fatal(fmt.Errorf("find plugin: %w", err))
		}
	}
	return map[Subject]Plugin{
		Zipline: zipline(""), Control: zipline(""), Bridge: bridge,
		Tracked: forwarding("tracked"), Direct: forwarding("direct"), Kernel: forwarding("kernel"),
	}
}
