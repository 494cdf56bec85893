// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
	"github.com/zipline-cni/zipline/loader"
)

// variant is a plugin and the way it forwards.
type variant struct {
	name       string // of the subtest
	plugin     string
	forwarding string // empty for the reference
}

var (
	kernelTier  = variant{"kernel", "zipline", "kernel"}
	directTier  = variant{"direct", "zipline", "direct"}
	trackedTier = variant{"tracked", "zipline", "tracked"}
	bridge      = variant{"bridge", "bridge", ""}

	// tiers are the ways of zipline to forward; each has to pass every case.
	tiers = []variant{kernelTier, directTier, trackedTier}
	// all compares them with the reference.
	all = []variant{kernelTier, directTier, trackedTier, bridge}
)

// network is what a test says about a configuration. The zero value of each
// field is the usual choice of these tests.
type network struct {
	name    string         // "net"
	segment string         // "seg0", the key "bridge"
	v4, v6  string         // subnets; "-" for none
	keys    map[string]any // added to the plugin's configuration
	ipam    map[string]any // added to ipam
}

// config returns the network configuration for a variant as JSON.
func (n network) config(v variant) string {
	var ranges [][]map[string]string
	for _, subnet := range []string{orDefault(n.v4, "10.77.0.0/16"), orDefault(n.v6, "fd00:77::/64")} {
		if subnet != "-" {
			ranges = append(ranges, []map[string]string{{"subnet": subnet}})
		}
	}
	ipam := map[string]any{"type": "host-local", "ranges": ranges}
	maps.Copy(ipam, n.ipam)
	if ipam["type"] != "host-local" {
		delete(ipam, "ranges")
	}
	conf := map[string]any{
		"cniVersion": "1.1.0", "name": orDefault(n.name, "net"), "type": v.plugin,
		"bridge": orDefault(n.segment, "seg0"), "isDefaultGateway": true, "ipMasq": true, "ipam": ipam,
	}
	if v.forwarding != "" {
		conf["forwarding"] = v.forwarding
	}
	maps.Copy(conf, n.keys)
	return toJSON(conf)
}

// topology is a world whose containers a variant attaches.
type topology struct {
	*testrig.World
	v    variant
	tb   testing.TB
	made int
}

// pod is an attached container.
type pod struct {
	*testrig.Container
	config string
	result *types100.Result
	v4, v6 netip.Addr // invalid where it has none
	gw4    netip.Addr
	gw6    netip.Addr
}

// newTopology makes a world for a variant.
func newTopology(tb testing.TB, v variant, opts testrig.Options) *topology {
	tb.Helper()
	testutil.RequireRoot(tb)
	for _, program := range []string{"ping", "nft", "iptables", "conntrack"} {
		testutil.RequireProgram(tb, program)
	}
	opts.PluginPath = append(opts.PluginPath, pluginPath(tb, v)...)
	top := &topology{World: testrig.New(tb, opts), v: v, tb: tb}
	tb.Cleanup(top.explain)
	return top
}

// explain writes the state of a failed test's node to a file of the directory
// that ZIPLINE_TEST_DUMP names.
func (top *topology) explain() {
	dir := os.Getenv("ZIPLINE_TEST_DUMP")
	if dir == "" || !top.tb.Failed() {
		return
	}
	var text strings.Builder
	for _, command := range []string{
		"ip -s -d addr", "ip -4 route show table all", "ip -6 route show table all", "ip neigh", "nft list ruleset",
		"conntrack -L", "conntrack -L -f ipv6", "grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf", "find /run /var/lib/cni /sys/fs/bpf",
	} {
		out, err := top.Node.Run("sh", "-c", command)
		_, _ = fmt.Fprintf(&text, "# %s (%v)\n%s\n", command, err, out) // a builder does not fail
	}
	file := filepath.Join(dir, strings.NewReplacer("/", "_", " ", "_").Replace(top.tb.Name())+".txt")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		top.tb.Logf("explain failure: %v", err)
	}
}

// requireLookup skips a test of tier direct that needs the lookup in conntrack:
// asked for by name, the tier does without (docs/architecture.md).
func (top *topology) requireLookup(t *testing.T) {
	t.Helper()
	if top.v == directTier {
		testutil.RequireKernel(t, "conntrack functions", loader.HaveConntrack())
	}
}

// requireSysctl skips a test on a kernel without a sysctl that zipline needs.
func (top *topology) requireSysctl(t *testing.T, key string) {
	t.Helper()
	if _, ok := top.Node.Sysctl(t, key); !ok {
		testutil.RequireKernel(t, key, os.ErrNotExist)
	}
}

// requireBigTCP skips a test on a kernel whose devices send no IPv4 packet above
// 64 KiB: it ignores the attribute.
func (top *topology) requireBigTCP(t *testing.T) {
	t.Helper()
	err := top.Node.Do(func() error {
		uplink, err := netlink.LinkByName(testrig.Uplink)
		if err == nil && uplink.Attrs().GSOIPv4MaxSize == 0 {
			err = errors.New("devices have no gso_ipv4_max_size")
		}
		return err
	})
	testutil.RequireKernel(t, "BIG TCP for IPv4", err)
}

// pluginPath lists the directories with the variant's plugin and its companions.
func pluginPath(tb testing.TB, v variant) []string {
	tb.Helper()
	dirs := []string{reference.Plugins(tb)}
	if v.plugin == "zipline" {
		dirs = append(dirs, filepath.Dir(reference.BuildZipline(tb)))
	}
	return dirs
}

// container makes a container that is not attached yet.
func (top *topology) container() *testrig.Container {
	top.tb.Helper()
	top.made++
	return top.Node.NewContainer(top.tb, fmt.Sprintf("c%d", top.made))
}

// attach makes a container and adds it to a network.
func (top *topology) attach(n network) *pod {
	top.tb.Helper()
	return top.add(top.container(), n.config(top.v))
}

// attachAll makes several containers of a network.
func (top *topology) attachAll(n network, count int) []*pod {
	top.tb.Helper()
	pods := make([]*pod, count)
	for i := range pods {
		pods[i] = top.attach(n)
	}
	top.settle()
	return pods
}

// add executes ADD, which has to succeed.
func (top *topology) add(c *testrig.Container, config string) *pod {
	top.tb.Helper()
	reply := c.Invoke(top.tb, "ADD", config)
	if err := reply.Err(); err != nil {
		top.tb.Fatalf("add %s: %v\n%s", c.ID, err, reply.Stderr)
	}
	return newPod(top.tb, c, config, parseResult(top.tb, reply.Stdout))
}

// del executes DEL, which has to succeed, with the pod's result.
func (top *topology) del(p *pod) {
	top.tb.Helper()
	if err := p.Invoke(top.tb, "DEL", withPrevResult(top.tb, p.config, p.result)).Err(); err != nil {
		top.tb.Fatalf("del %s: %v", p.ID, err)
	}
}

// settle waits for the reference's gateway addresses, which do duplicate address
// detection; zipline's have to work at once.
func (top *topology) settle() {
	top.tb.Helper()
	if top.v != bridge {
		return
	}
	deadline := time.Now().Add(5 * time.Second)
	for top.Node.MustRun(top.tb, "ip", "-6", "addr", "show", "tentative") != "" {
		if time.Now().After(deadline) {
			top.tb.Fatal("addresses of the reference stay tentative")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func newPod(tb testing.TB, c *testrig.Container, config string, result *types100.Result) *pod {
	tb.Helper()
	p := &pod{Container: c, config: config, result: result}
	for _, ip := range result.IPs {
		addr, _ := netip.AddrFromSlice(ip.Address.IP)
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		if addr.Unmap().Is4() {
			p.v4, p.gw4 = addr.Unmap(), gateway.Unmap()
		} else {
			p.v6, p.gw6 = addr, gateway
		}
	}
	return p
}

// family is one address family of a test's endpoints.
type family struct {
	name           string
	node, outside  netip.Addr
	addr, gateway  func(*pod) netip.Addr
	service, alien netip.Addr // a service address; one that is nobody's
	nft            string     // its word in nft rules
	headers        int        // bytes of IP and ICMP headers of an echo request
}

var families = []family{
	{
		name: "IPv4", node: testrig.NodeIPv4, outside: testrig.InternetIPv4,
		addr: func(p *pod) netip.Addr { return p.v4 }, gateway: func(p *pod) netip.Addr { return p.gw4 },
		service: netip.MustParseAddr("10.96.0.10"), alien: netip.MustParseAddr("198.18.0.1"),
		nft: "ip", headers: 28,
	}, {
		name: "IPv6", node: testrig.NodeIPv6, outside: testrig.InternetIPv6,
		addr: func(p *pod) netip.Addr { return p.v6 }, gateway: func(p *pod) netip.Addr { return p.gw6 },
		service: netip.MustParseAddr("fd00:96::10"), alien: netip.MustParseAddr("2001:db8:bad::1"),
		nft: "ip6", headers: 48,
	},
}

// reach checks that a server in to at addr answers from by TCP, UDP and ICMP,
// and returns the address that the servers saw.
func reach(t *testing.T, from, to *testrig.Namespace, addr netip.Addr) netip.Addr {
	t.Helper()
	payload := []byte(strings.Repeat("zipline ", 100))
	tcp, err := from.EchoTCP(to.ServeTCP(t, netip.AddrPortFrom(addr, 0)).Addr, payload, testrig.Socket{})
	if err != nil {
		t.Errorf("tcp to %s: %v", addr, err)
	}
	udp, err := from.EchoUDP(to.ServeUDP(t, netip.AddrPortFrom(addr, 0)).Addr, payload, testrig.Socket{})
	if err != nil {
		t.Errorf("udp to %s: %v", addr, err)
	}
	if err := from.Ping(addr); err != nil {
		t.Error(err)
	}
	if tcp.Addr() != udp.Addr() {
		t.Errorf("to %s: tcp came from %s, udp from %s", addr, tcp.Addr(), udp.Addr())
	}
	return tcp.Addr()
}

// hostDevice returns the name of the pod's device in the node: the interface of
// the result that has no sandbox and is the peer of its own.
func hostDevice(p *pod) string {
	name := ""
	for _, link := range p.result.Interfaces {
		if link.Sandbox == "" {
			name = link.Name
		}
	}
	return name
}

func parseResult(tb testing.TB, stdout string) *types100.Result {
	tb.Helper()
	var probe struct {
		Version string `json:"cniVersion"`
	}
	if err := json.Unmarshal([]byte(stdout), &probe); err != nil {
		tb.Fatalf("result is not JSON: %v\n%s", err, stdout)
	}
	raw, err := create.Create(probe.Version, []byte(stdout))
	if err != nil {
		tb.Fatalf("parse result: %v\n%s", err, stdout)
	}
	result, err := types100.NewResultFromResult(raw)
	if err != nil {
		tb.Fatalf("convert result: %v", err)
	}
	return result
}

// withPrevResult puts a result into a configuration, as a runtime does for
// CHECK and DEL.
func withPrevResult(tb testing.TB, config string, result *types100.Result) string {
	tb.Helper()
	return mustEdit(config, func(conf map[string]any) {
		converted, err := result.GetAsVersion(fmt.Sprint(conf["cniVersion"]))
		if err != nil {
			tb.Fatalf("convert result: %v", err)
		}
		conf["prevResult"] = converted
	})
}

// mustEdit changes a JSON object that the tests wrote themselves.
func mustEdit(config string, change func(map[string]any)) string {
	conf := map[string]any{}
	if err := json.Unmarshal([]byte(config), &conf); err != nil {
		panic(fmt.Sprintf("edit configuration: %v", err))
	}
	change(conf)
	return toJSON(conf)
}

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", v, err))
	}
	return string(text)
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
