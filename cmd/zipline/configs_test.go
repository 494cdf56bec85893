// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// automatic is zipline with nothing changed but the type.
var automatic = variant{"zipline", "zipline", ""}

// TestExamples attaches containers with every configuration of docs/examples,
// through the whole chain of plugins, and compares what they get and whom they
// reach with the same configuration for the reference plugin.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testutil.RepoRoot(t), "docs/examples/*.conf*"))
	if err != nil || len(files) < 7 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		for _, netfilter := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, bridge-nf-call-iptables %v", filepath.Base(file), netfilter), func(t *testing.T) {
				t.Parallel()
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				opts := testrig.Options{BridgeNetfilter: netfilter}
				want := transcript(t, newTopology(t, bridge, opts), string(text))
				got := transcript(t, newTopology(t, automatic, opts), string(text))
				compareTranscripts(t, got, want)
			})
		}
	}
}

// transcript lives through a configuration's whole life and returns what a user
// would notice, in lines.
func transcript(t *testing.T, top *topology, text string) []string {
	t.Helper()
	config := ofType(text, top.v.plugin)
	network, another := testrig.NewRuntime(t, top.Node, config), testrig.NewRuntime(t, top.Node, anotherNetwork(config))
	fresh := top.Node.Snapshot(t)
	var lines []string
	var pods []*pod
	mappings := map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}
	capabilities := []map[string]any{mappings, nil, nil}
	for i, runtime := range []*testrig.Runtime{network, network, another} {
		c := top.container()
		result, err := runtime.Add(c, capabilities[i])
		if err != nil {
			t.Fatalf("%s: add: %v", top.v.name, err)
		}
		pods = append(pods, newPod(t, c, config, result))
		lines = append(lines, describeContainer(t, pods[i])...)
	}
	top.settle()
	check := func(when string) {
		for i, runtime := range []*testrig.Runtime{network, network, another} {
			if runtime.CNIVersion() < "0.4.0" {
				continue
			}
			if err := runtime.Check(pods[i].Container, capabilities[i]); err != nil {
				t.Errorf("%s: check of %s %s: %v", top.v.name, pods[i].ID, when, err)
			}
		}
	}
	check("after ADD")
	lines = append(lines, top.matrix(t, pods, strings.Contains(config, "portmap"))...)
	check("after traffic")
	lines = append(lines, top.isolationRules(t)...)
	for i, runtime := range []*testrig.Runtime{network, network, another} {
		for range 2 {
			if err := runtime.Del(pods[i].Container, capabilities[i]); err != nil {
				t.Errorf("%s: del of %s: %v", top.v.name, pods[i].ID, err)
			}
		}
	}
	if top.v != bridge {
		diff := fresh.Diff(top.Node.Snapshot(t), append(slices.Clone(staysOnNode), staysOfCompanions...)...)
		if len(diff) > 0 {
			t.Errorf("after the last DEL the node differs:\n%s", strings.Join(diff, "\n"))
		}
	}
	return lines
}

// staysOfCompanions is what portmap and firewall leave behind by themselves,
// also after the reference plugin.
var staysOfCompanions = []*regexp.Regexp{
	regexp.MustCompile(`^nft table ip6? (filter|nat|mangle)\b`),
	regexp.MustCompile(`^file /run/xtables\.lock`),
	regexp.MustCompile(`^file /run/cni(/tuning)?$`),
}

// describeContainer says what a container got: addresses, routes, MTU.
func describeContainer(t *testing.T, p *pod) []string {
	t.Helper()
	var lines []string
	add := func(kind, text string) {
		for line := range strings.Lines(text) {
			if line = strings.Join(strings.Fields(line), " "); line != "" {
				lines = append(lines, fmt.Sprintf("%s has %s %s", p.ID, kind, line))
			}
		}
	}
	var link []struct {
		MTU   int    `json:"mtu"`
		State string `json:"operstate"`
	}
	if err := json.Unmarshal([]byte(p.MustRun(t, "ip", "-j", "link", "show", testrig.IfName)), &link); err != nil {
		t.Fatal(err)
	}
	add("mtu", fmt.Sprint(link[0].MTU, link[0].State))
	// The reference switches duplicate address detection off by a sysctl alone.
	addresses := strings.ReplaceAll(p.MustRun(t, "ip", "-o", "addr", "show", "dev", testrig.IfName), " nodad", "")
	add("address", withoutLinkLocal(addresses))
	add("route", p.MustRun(t, "ip", "-4", "route"))
	add("route", withoutLinkLocal(p.MustRun(t, "ip", "-6", "route")))
	add("result", toJSON(map[string]any{"ips": withoutInterfaces(p.result.IPs), "routes": p.result.Routes, "dns": p.result.DNS}))
	return lines
}

// withoutLinkLocal drops lines of link-local addresses, which follow the MAC,
// and zipline's own IPv6 routes: the subnet's through the host device and the
// gateway's (docs/architecture.md).
func withoutLinkLocal(text string) string {
	return strings.Join(deleteMatching(strings.Split(text, "\n"), regexp.MustCompile(`fe80::|^multicast|proto 122`)), "\n")
}

func withoutInterfaces(ips []*types100.IPConfig) []string {
	var texts []string
	for _, ip := range ips {
		texts = append(texts, fmt.Sprintf("%s gateway %s", &ip.Address, ip.Gateway))
	}
	return texts
}

// matrix says who reaches whom, and under which address.
func (top *topology) matrix(t *testing.T, pods []*pod, published bool) []string {
	t.Helper()
	var lines []string
	places := []*testrig.Namespace{&pods[0].Namespace, &pods[1].Namespace, &pods[2].Namespace, &top.Node.Namespace, top.Outside}
	for _, f := range families {
		if !f.addr(pods[0]).IsValid() {
			continue
		}
		targets := []struct {
			at   *testrig.Namespace
			addr netip.Addr
		}{
			{&pods[0].Namespace, f.addr(pods[0])}, {&pods[1].Namespace, f.addr(pods[1])}, {&pods[2].Namespace, f.addr(pods[2])},
			{&top.Node.Namespace, f.gateway(pods[0])}, {&top.Node.Namespace, f.node}, {top.Outside, f.outside},
		}
		for _, to := range targets {
			if !to.addr.IsValid() {
				continue
			}
			tcp := to.at.ServeTCP(t, netip.AddrPortFrom(to.addr, 80))
			udp := to.at.ServeUDP(t, netip.AddrPortFrom(to.addr, 80))
			for _, from := range places[:4] {
				lines = append(lines, fmt.Sprintf("%s -> %s at %s: %s", from.Name, to.addr, to.at.Name, top.probe(from, to.addr)))
			}
			if published && to.at == places[0] && f.name == "IPv4" {
				lines = append(lines, top.published(places)...)
			}
			tcp.Close()
			udp.Close()
		}
	}
	return lines
}

// probe tries an address by each protocol.
func (top *topology) probe(from *testrig.Namespace, addr netip.Addr) string {
	socket := testrig.Socket{Timeout: time.Second}
	say := func(protocol string, peer netip.AddrPort, err error) string {
		if err != nil {
			return protocol + " no"
		}
		return fmt.Sprintf("%s as %s", protocol, peer.Addr())
	}
	tcp, tcpErr := from.EchoTCP(netip.AddrPortFrom(addr, 80), []byte("matrix"), socket)
	udp, udpErr := from.EchoUDP(netip.AddrPortFrom(addr, 80), []byte("matrix"), socket)
	_, pingErr := from.PingWith(addr, testrig.PingOptions{Negative: true})
	return fmt.Sprintf("%s, %s, icmp %v", say("tcp", tcp, tcpErr), say("udp", udp, udpErr), pingErr == nil)
}

// published tries the host port of the first container from everywhere.
func (top *topology) published(places []*testrig.Namespace) []string {
	var lines []string
	for _, from := range places {
		peer, err := from.EchoTCP(netip.AddrPortFrom(testrig.NodeIPv4, 8080), []byte("published"), testrig.Socket{Timeout: time.Second})
		lines = append(lines, fmt.Sprintf("%s -> host port: %v as %s", from.Name, err == nil, peer.Addr()))
	}
	peer, err := top.Node.EchoTCP(netip.MustParseAddrPort("127.0.0.1:8080"), []byte("published"), testrig.Socket{Timeout: time.Second})
	return append(lines, fmt.Sprintf("node -> host port at 127.0.0.1: %v as %s", err == nil, peer.Addr()))
}

// isolationRules counts what the firewall plugin wrote for two networks: it
// never removes these, so their number must not grow with the containers.
func (top *topology) isolationRules(t *testing.T) []string {
	t.Helper()
	rules := strings.Count(top.Node.MustRun(t, "iptables-save", "-t", "filter"), "-A CNI-ISOLATION")
	return []string{fmt.Sprintf("firewall wrote %d isolation rules", rules)}
}

// A container that reaches itself through its own host port: on a bridge this
// needs hairpinMode where br_netfilter is on.
var (
	bridgeLacks = regexp.MustCompile(`^c1 -> host port: false`)
	ziplineHas  = regexp.MustCompile(`^c1 -> host port: true`)
)

func compareTranscripts(t *testing.T, got, want []string) {
	t.Helper()
	for _, line := range want {
		if !slices.Contains(got, line) && !bridgeLacks.MatchString(line) {
			t.Errorf("only the reference: %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) && !ziplineHas.MatchString(line) {
			t.Errorf("only zipline:       %s", line)
		}
	}
}

// ofType changes the type of a configuration's first plugin.
func ofType(text, plugin string) string {
	return eachMain(text, func(main map[string]any) { main["type"] = plugin })
}

// anotherNetwork is a second network of the same kind.
func anotherNetwork(config string) string {
	other := eachMain(config, func(main map[string]any) {
		main["bridge"] = "another0"
		if _, ok := main["name"]; ok {
			main["name"] = "another"
		}
		ipam := main["ipam"].(map[string]any)
		delete(ipam, "subnet")
		ipam["ranges"] = [][]map[string]string{{{"subnet": "10.200.0.0/16"}}}
		ipam["routes"] = []map[string]string{{"dst": "10.0.0.0/8"}}
	})
	return setKeys(other, map[string]any{"name": "another"})
}

// eachMain changes the first plugin of a list, or a single plugin.
func eachMain(text string, change func(map[string]any)) string {
	return mustEdit(text, func(conf map[string]any) {
		if plugins, ok := conf["plugins"].([]any); ok {
			conf = plugins[0].(map[string]any)
		}
		change(conf)
	})
}
