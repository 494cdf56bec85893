// SPDX-License-Identifier: Apache-2.0

// The networks of cases, and the ways through them.

package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"

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

// Paths are those of a run of cases.
var Paths = []Path{Local, Outside, HostPort, Service}

// The ports of the container that serves, and what stands in front of them.
const (
	containerPort = 8080
	hostPort      = 30080
	servicePort   = 80
)

// published is what makes a runtime publish the container's port.
var published = map[string]any{"portMappings": []map[string]any{
	{"hostPort": hostPort, "containerPort": containerPort, "protocol": "tcp"},
	{"hostPort": hostPort, "containerPort": containerPort, "protocol": "udp"},
}}

var serviceIPv4 = netip.MustParseAddr("10.96.0.10")

// serviceRules are what a proxy of services writes, in the shape of kube-proxy's
// mode nftables: the price of the look-up does not depend on the number of services,
// and no case needs iptables for it. Every node has the same. The client's address
// stays, as it does for a client of the cluster.
const serviceRules = `table ip bench-services {
	map services {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { %[1]s . tcp . %[2]d : goto service-tcp, %[1]s . udp . %[2]d : goto service-udp }
	}
	chain service-tcp { meta l4proto tcp dnat to %[3]s:%[4]d; }
	chain service-udp { meta l4proto udp dnat to %[3]s:%[4]d; }
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr . meta l4proto . th dport vmap @services
	}
}
`

// site is the network of a case.
type site struct {
	of    Case
	lanes map[Path]lane
	tb    testing.TB
	// world and runtime of a plugin's case.
	world   *testrig.World
	runtime *testrig.Runtime
	// endpoints beside the client.
	endpoints int
}

// lane returns the way of a cell, with its proof.
func (s *site) lane(in cell) lane {
	l := s.lanes[in.path]
	if s.world != nil {
		l.proof = s.of.Carried.proof(s.world.Node, in)
	}
	return l
}

// has says whether there is a way along a path.
func (s *site) has(p Path) bool {
	_, ok := s.lanes[p]
	return ok
}

// newSite makes the network of a case, which ends with tb. Plugins are looked for
// in these directories.
func newSite(tb testing.TB, of Case, dirs []string) (*site, error) {
	switch of.Kind {
	case KindLoopback:
		return newLoopback(tb, of)
	case KindWire:
		return newWire(tb, of)
	default:
		return newPluginSite(tb, of, dirs)
	}
}

// newLoopback makes a namespace.
func newLoopback(tb testing.TB, of Case) (*site, error) {
	w := testrig.New(tb, testrig.Options{})
	ns, err := openNamespace(tb, w.Outside.Do)
	if err != nil {
		return nil, err
	}
	self := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	return everywhere(of, lane{client: ns, server: ns, to: self, peer: self}), nil
}

// newWire makes two namespaces joined by a veth pair: a world's node and the host
// outside of it, before anybody has made anything in either.
func newWire(tb testing.TB, of Case) (*site, error) {
	w := testrig.New(tb, testrig.Options{})
	l := lane{to: testrig.OutsideIPv4, peer: testrig.NodeIPv4}
	var err error
	if l.client, err = openNamespace(tb, w.Node.Do); err != nil {
		return nil, err
	}
	if l.server, err = openNamespace(tb, w.Outside.Do); err != nil {
		return nil, err
	}
	return everywhere(of, l), nil
}

// everywhere returns the site of a case with one way, which stands for every path.
func everywhere(of Case, l lane) *site {
	s := &site{of: of, lanes: map[Path]lane{}}
	for _, path := range Paths {
		s.lanes[path] = l
	}
	return s
}

// newPluginSite makes a node where the case's network has two containers, of which
// the second one has a port published and a service in front.
func newPluginSite(tb testing.TB, of Case, dirs []string) (*site, error) {
	dirs = slices.Concat(of.PluginPath, dirs)
	if err := requirePlugins(of, dirs); err != nil {
		return nil, err
	}
	mapsPorts, err := of.mapsPorts()
	if err != nil {
		return nil, err
	}
	w := testrig.New(tb, testrig.Options{PluginPath: dirs, BridgeNetfilter: of.BridgeNetfilter})
	s := &site{of: of, tb: tb, world: w, runtime: testrig.NewRuntime(tb, w.Node, string(of.Network)), endpoints: 1}
	client, err := s.attach("client", nil)
	if err != nil {
		return nil, err
	}
	server, err := s.attach("server", published)
	if err != nil {
		return nil, err
	}
	outside, err := openNamespace(tb, w.Outside.Do)
	if err != nil {
		return nil, err
	}
	forgetCallsSoon(tb, w.Node)
	rules := fmt.Sprintf(serviceRules, serviceIPv4, servicePort, server.address, containerPort)
	if _, err := w.Node.RunInput(rules, "nft", "-f", "-"); err != nil {
		return nil, fmt.Errorf("write service: %w", err)
	}
	s.lanes = map[Path]lane{
		Local:   {client: client.namespace, server: server.namespace, to: server.address, peer: client.address},
		Outside: {client: client.namespace, server: outside, to: testrig.InternetIPv4, peer: testrig.NodeIPv4},
		Service: {
			client: client.namespace, server: server.namespace, to: server.address, port: containerPort,
			front: netip.AddrPortFrom(serviceIPv4, servicePort), peer: client.address,
		},
	}
	if mapsPorts {
		s.lanes[HostPort] = lane{
			client: outside, server: server.namespace, to: server.address, port: containerPort,
			front: netip.AddrPortFrom(testrig.NodeIPv4, hostPort), peer: testrig.OutsideIPv4,
		}
	}
	return s, nil
}

// forgetCallsSoon lets a node forget a closed connection ten seconds after its end,
// which costs the connections themselves nothing. By default it takes two minutes,
// and the calls of one minute fill the table of all connections: then no other
// begins.
func forgetCallsSoon(tb testing.TB, node *testrig.Node) {
	const key = "netfilter/nf_conntrack_tcp_timeout_time_wait"
	if _, tracks := node.Sysctl(tb, key); tracks {
		node.SetSysctl(tb, key, "10")
	}
}

// requirePlugins says which plugin of a case's network is missing.
func requirePlugins(of Case, dirs []string) error {
	programs, err := of.programs()
	if err != nil {
		return err
	}
	for _, program := range programs {
		if _, err := invoke.FindInPath(program, dirs); err != nil {
			return fmt.Errorf("find plugin: %w", err)
		}
	}
	return nil
}

// attached is a container with an address.
type attached struct {
	namespace *os.File
	address   netip.Addr
}

// attach adds a container to the network that is to be an end of connections.
func (s *site) attach(id string, capabilities map[string]any) (attached, error) {
	c, result, err := s.add(id, capabilities)
	if err != nil {
		return attached{}, err
	}
	addresses := testrig.Addresses(result)
	i := slices.IndexFunc(addresses, netip.Addr.Is4)
	if i < 0 {
		return attached{}, fmt.Errorf("attach %s: %w", id, errors.New("result has no IPv4 address"))
	}
	namespace, err := openNamespace(s.tb, c.Do)
	return attached{namespace, addresses[i]}, err
}

// add makes a container and adds it to the network.
func (s *site) add(id string, capabilities map[string]any) (*testrig.Container, *types100.Result, error) {
	c := s.world.Node.NewContainer(s.tb, id)
	result, err := s.runtime.Add(c, capabilities)
	if err != nil {
		return nil, nil, fmt.Errorf("attach %s: %w", id, err)
	}
	return c, result, nil
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

// newTrackedSite makes the network of the case [Tracked] with the plugins of the
// options.
func newTrackedSite(tb testing.TB, opts FlowOptions) (*site, error) {
	cases, err := DefaultCases()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(cases, func(c Case) bool { return c.Name == Tracked })
	if i < 0 {
		return nil, fmt.Errorf("no case %q", Tracked)
	}
	return newSite(tb, cases[i], pluginDirs(tb, opts.Zipline, opts.Plugins))
}
