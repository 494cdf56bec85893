// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// configuration is what the containers are attached with, from the repository's
// root.
const configuration = "docs/examples/openfaas.conflist"

// tcpPort is where every host of the demo answers.
const tcpPort = 7777

// demo is the state of a run.
type demo struct {
	tb     testing.TB
	hooks  hooks
	world  *testrig.World
	runner *runner
	cni    *libcni.CNIConfig
	list   *libcni.NetworkConfigList
	pods   []*pod
	screen screen
}

// pod is a container and what ADD said about it.
type pod struct {
	*testrig.Container
	address netip.Prefix
	gateway netip.Addr
	mac     string
	device  string // on the node
	add     map[string]time.Duration
	del     map[string]time.Duration
}

// newDemo builds the plugins and makes the node with three containers.
func newDemo(tb testing.TB, h hooks) *demo {
	tb.Helper()
	testutil.RequireRoot(tb)
	tb.Log("building the plugin and the reference plugins")
	path := []string{filepath.Dir(reference.BuildZipline(tb)), reference.Plugins(tb)}
	// BridgeNetfilter is off, so that forwarding "auto" is direct.
	d := &demo{tb: tb, hooks: h, world: testrig.New(tb, testrig.Options{PluginPath: path})}
	text, err := os.ReadFile(filepath.Join(testutil.RepoRoot(tb), configuration))
	if err != nil {
		tb.Fatal(fmt.Errorf("read configuration: %w", err))
	}
	if d.list, err = libcni.NetworkConfFromBytes(text); err != nil {
		tb.Fatal(fmt.Errorf("parse %s: %w", configuration, err))
	}
	d.runner = &runner{tb: tb, node: d.world.Node}
	d.cni = libcni.NewCNIConfigWithCacheDir(path, tb.TempDir(), d.runner)
	for _, name := range []string{"a", "b", "c"} {
		d.pods = append(d.pods, &pod{Container: d.world.Node.NewContainer(tb, name)})
	}
	return d
}

// show fills the screen.
func (d *demo) show() {
	d.screen.title("zipline: three containers on a private node, with " + configuration)
	d.attach()
	if d.hooks.attached != nil {
		d.hooks.attached(d)
	}
	d.showResults()
	d.serve()
	d.showReach()
	d.showSource()
	d.showCounters()
	before := d.leftovers()
	d.detach()
	if d.hooks.detached != nil {
		d.hooks.detached(d)
	}
	d.showLeftovers(before, d.leftovers())
	verdict := "All of it is true."
	if n := len(d.screen.untrue); n > 0 {
		verdict = fmt.Sprintf("NOT TRUE (✗): %d", n)
	}
	d.screen.title(verdict)
}

func (d *demo) attach() {
	for _, p := range d.pods {
		took, result, err := d.add(p)
		if err != nil {
			d.tb.Fatal(fmt.Errorf("attach container %s: %w", p.ID, err))
		}
		p.add = took
		if err := p.read(result); err != nil {
			d.tb.Fatal(fmt.Errorf("read result of container %s: %w", p.ID, err))
		}
	}
}

func (d *demo) detach() {
	for _, p := range d.pods {
		took, err := d.del(p)
		if err != nil {
			d.tb.Fatal(fmt.Errorf("detach container %s: %w", p.ID, err))
		}
		p.del = took
	}
}

// read takes from a result what the demo shows and uses.
func (p *pod) read(result *types100.Result) error {
	if len(result.IPs) != 1 || result.IPs[0].Interface == nil {
		return fmt.Errorf("%d addresses; want one, of an interface", len(result.IPs))
	}
	ip := result.IPs[0]
	address, _ := netip.AddrFromSlice(ip.Address.IP)
	length, _ := ip.Address.Mask.Size()
	p.address = netip.PrefixFrom(address.Unmap(), length)
	gateway, _ := netip.AddrFromSlice(ip.Gateway)
	p.gateway = gateway.Unmap()
	index := *ip.Interface
	if index < 1 || index >= len(result.Interfaces) {
		return fmt.Errorf("interface %d of %d", index, len(result.Interfaces))
	}
	p.mac = result.Interfaces[index].Mac
	p.device = result.Interfaces[index-1].Name
	return nil
}

func (d *demo) showResults() {
	d.screen.title("RESULTS                                        (forwarding: auto is direct)")
	rows := [][]string{{"container", "address", "gateway", "mac", "device on the node", "ADD", "+ firewall's"}}
	for _, p := range d.pods {
		rows = append(rows, []string{
			p.ID, p.address.String(), p.gateway.String(), p.mac, p.device,
			milliseconds(p.add["zipline"]), milliseconds(p.add["firewall"]),
		})
	}
	d.screen.table(rows)
}

func milliseconds(t time.Duration) string {
	return fmt.Sprintf("%.1f ms", t.Seconds()*1e3)
}
