// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// trafficCase is one promise about packets.
type trafficCase struct {
	name string
	// variants that have to keep it.
	variants []variant
	// world is what the node is like.
	world testrig.Options
	run   func(t *testing.T, top *topology)
}

// TestTraffic is the table of what containers may expect of their network, with
// real packets. Each case has a world of its own.
func TestTraffic(t *testing.T) {
	for _, cases := range [][]trafficCase{neighbourCases, nodeCases, natCases, safetyCases, changeCases} {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				for _, v := range c.variants {
					t.Run(v.name, func(t *testing.T) {
						t.Parallel()
						c.run(t, newTopology(t, v, c.world))
					})
				}
			})
		}
	}
}

// neighbourCases are about two containers of one network.
var neighbourCases = []trafficCase{
	{name: "neighbours reach each other", variants: all, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{}, 3)
		for _, f := range families {
			for _, from := range pods {
				for _, to := range pods {
					// To itself as well.
					if peer := reach(t, &from.Namespace, &to.Namespace, f.addr(to)); peer != f.addr(from) {
						t.Errorf("%s sees %s; want %s", to.ID, peer, f.addr(from))
					}
				}
			}
		}
	}},
	{name: "neighbours reach each other where filters are strict", variants: all,
		world: testrig.Options{StrictReversePath: true, BridgeNetfilter: true},
		run: func(t *testing.T, top *topology) {
			pods := top.attachAll(network{}, 2)
			for _, f := range families {
				reach(t, &pods[0].Namespace, &pods[1].Namespace, f.addr(pods[1]))
				reach(t, &pods[0].Namespace, top.Outside, f.outside)
			}
		}},
	{name: "a network of one family works alone", variants: all, run: func(t *testing.T, top *topology) {
		only4 := top.attachAll(network{name: "only4", segment: "seg4", v6: "-"}, 2)
		reach(t, &only4[0].Namespace, &only4[1].Namespace, only4[1].v4)
		only6 := top.attachAll(network{name: "only6", segment: "seg6", v4: "-"}, 2)
		reach(t, &only6[0].Namespace, &only6[1].Namespace, only6[1].v6)
	}},
	{name: "a node without IPv6 carries IPv4", variants: all, world: testrig.Options{NoIPv6: true},
		run: func(t *testing.T, top *topology) {
			pods := top.attachAll(network{v6: "-"}, 2)
			reach(t, &pods[0].Namespace, &pods[1].Namespace, pods[1].v4)
			reach(t, &pods[0].Namespace, top.Outside, testrig.InternetIPv4)
		}},
	{name: "a big transfer arrives unchanged", variants: all, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{}, 2)
		for _, f := range families {
			server := pods[1].ServeTCP(t, netip.AddrPortFrom(f.addr(pods[1]), 0))
			if err := pods[0].Bulk(server.Addr, 64<<20); err != nil {
				t.Error(err)
			}
		}
	}},
	{name: "a big transfer in big packets arrives unchanged", variants: tiers, run: func(t *testing.T, top *topology) {
		top.requireBigTCP(t)
		pods := top.attachAll(network{keys: map[string]any{"bigTCP": "on"}}, 2)
		for _, f := range families {
			server := pods[1].ServeTCP(t, netip.AddrPortFrom(f.addr(pods[1]), 0))
			if err := pods[0].Bulk(server.Addr, 64<<20); err != nil {
				t.Error(err)
			}
			outside := top.Outside.ServeTCP(t, netip.AddrPortFrom(f.outside, 0))
			if err := pods[0].Bulk(outside.Addr, 16<<20); err != nil {
				t.Error(err)
			}
		}
	}},
	{name: "a packet of exactly the MTU passes unfragmented", variants: all, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{keys: map[string]any{"mtu": 1400}}, 2)
		for _, f := range families {
			size := 1400 - f.headers
			if _, err := pods[0].PingWith(f.addr(pods[1]), testrig.PingOptions{Size: size, DontFragment: true}); err != nil {
				t.Error(err)
			}
			_, err := pods[0].PingWith(f.addr(pods[1]), testrig.PingOptions{Size: size + 1, DontFragment: true, Negative: true})
			if err == nil {
				t.Errorf("%s: %d bytes passed an MTU of 1400", f.name, 1401)
			}
		}
	}},
	{name: "a packet over the destination's MTU is answered by an error", variants: tiers, run: testPathMTU},
	{name: "fragments pass", variants: all, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{}, 2)
		for _, f := range families {
			server := pods[1].ServeUDP(t, netip.AddrPortFrom(f.addr(pods[1]), 0))
			for _, size := range []int{1480, 8000, 60000} {
				if _, err := pods[0].EchoUDP(server.Addr, make([]byte, size), testrig.Socket{}); err != nil {
					t.Errorf("%s, %d bytes: %v", f.name, size, err)
				}
			}
			if _, err := pods[0].PingWith(f.addr(pods[1]), testrig.PingOptions{Size: 8000}); err != nil {
				t.Error(err)
			}
		}
	}},
	{name: "IPv4 options pass", variants: all, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{}, 2)
		noOperation := testrig.Socket{IPOptions: []byte{1, 1, 1, 0}}
		payload := []byte("options")
		if _, err := pods[0].EchoUDP(pods[1].ServeUDP(t, netip.AddrPortFrom(pods[1].v4, 0)).Addr, payload, noOperation); err != nil {
			t.Error(err)
		}
		if _, err := pods[0].EchoTCP(pods[1].ServeTCP(t, netip.AddrPortFrom(pods[1].v4, 0)).Addr, payload, noOperation); err != nil {
			t.Error(err)
		}
		if _, err := pods[0].PingWith(pods[1].v4, testrig.PingOptions{RecordRoute: true}); err != nil {
			t.Error(err)
		}
	}},
	{name: "UDP without a checksum passes", variants: all, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{}, 2)
		server := pods[1].ServeUDP(t, netip.AddrPortFrom(pods[1].v4, 0))
		if _, err := pods[0].EchoUDP(server.Addr, []byte("no checksum"), testrig.Socket{NoChecksum: true}); err != nil {
			t.Error(err)
		}
	}},
	{name: "a packet whose TTL ends is answered by an error", variants: tiers, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{}, 2)
		for _, f := range families {
			wantICMPError(t, pods[0], f.addr(pods[1]), testrig.PingOptions{TTL: 1}, "Time.* exceeded")
			if _, err := pods[0].PingWith(f.addr(pods[1]), testrig.PingOptions{TTL: 2}); err != nil {
				t.Error(err)
			}
		}
	}},
	{name: "broadcast and multicast harm nothing", variants: all, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{}, 2)
		for _, f := range families {
			group := map[string]string{"IPv4": "224.0.0.251", "IPv6": "ff02::fb"}[f.name]
			packet := testrig.UDP(netip.AddrPortFrom(f.addr(pods[0]), 5353), netip.AddrPortFrom(netip.MustParseAddr(group), 5353), []byte("mdns"))
			for range 20 {
				pods[0].SendFrame(t, testrig.IfName, testrig.Ethernet(testrig.Broadcast, pods[0].HardwareAddr(t, testrig.IfName), packet))
			}
			reach(t, &pods[0].Namespace, &pods[1].Namespace, f.addr(pods[1]))
		}
	}},
}

// testPathMTU lowers the MTU of the destination behind the back of the sender.
//
// In tier direct the flow comes to the stack, which answers, once conntrack
// knows it from the fragments of a reply.
func testPathMTU(t *testing.T, top *topology) {
	top.requireLookup(t)
	pods := top.attachAll(network{}, 2)
	pods[1].MustRun(t, "ip", "link", "set", testrig.IfName, "mtu", "1300")
	top.Node.MustRun(t, "ip", "link", "set", hostDevice(pods[1]), "mtu", "1300")
	for _, f := range families {
		wantICMPError(t, pods[0], f.addr(pods[1]), testrig.PingOptions{Size: 1400, DontFragment: true},
			"(?i)frag needed|packet too big|message too long")
		top.flushExceptions(t, pods[0])
		server := pods[1].ServeUDP(t, netip.AddrPortFrom(f.addr(pods[1]), 0))
		conn, err := pods[0].Dial("udp", server.Addr, testrig.Socket{DontFragment: true})
		if err != nil {
			t.Fatal(err)
		}
		// The error to the first datagram is told to a later one.
		for deadline := time.Now().Add(testrig.Timeout); ; time.Sleep(20 * time.Millisecond) {
			if _, err = conn.Write(make([]byte, 1400)); errors.Is(err, unix.EMSGSIZE) {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s: no error for datagrams over the MTU: %v", f.name, err)
				break
			}
		}
		_ = conn.Close()
		top.flushExceptions(t, pods[0])
		tcp := pods[1].ServeTCP(t, netip.AddrPortFrom(f.addr(pods[1]), 0))
		if err := pods[0].Bulk(tcp.Addr, 1<<20); err != nil {
			t.Error(err)
		}
	}
}

// wantICMPError sends echo requests until one is answered by an error.
func wantICMPError(t *testing.T, p *pod, dst netip.Addr, opts testrig.PingOptions, pattern string) {
	t.Helper()
	opts.Negative = true
	var out string
	var err error
	for range 4 {
		if out, err = p.PingWith(dst, opts); err == nil {
			t.Errorf("%s: the echo request %+v is answered", dst, opts)
			return
		}
		if regexp.MustCompile(pattern).MatchString(out + err.Error()) {
			return
		}
	}
	t.Errorf("%s: no error to the echo request %+v: %v\n%s", dst, opts, err, out)
}

// flushExceptions lets a container forget path MTUs.
func (top *topology) flushExceptions(t *testing.T, p *pod) {
	t.Helper()
	p.MustRun(t, "ip", "route", "flush", "cache")
	p.MustRun(t, "ip", "-6", "route", "flush", "cache")
}

// nodeCases are about a container and its node.
var nodeCases = []trafficCase{
	{name: "container and node reach each other", variants: all, run: func(t *testing.T, top *topology) {
		p := top.attachAll(network{}, 1)[0]
		for _, f := range families {
			for _, addr := range []netip.Addr{f.gateway(p), f.node} {
				if peer := reach(t, &p.Namespace, &top.Node.Namespace, addr); peer != f.addr(p) {
					t.Errorf("the node at %s sees %s; want %s", addr, peer, f.addr(p))
				}
			}
			reach(t, &top.Node.Namespace, &p.Namespace, f.addr(p))
		}
	}},
	{name: "a container without gateway addresses reaches its neighbours", variants: all, run: func(t *testing.T, top *topology) {
		pods := top.attachAll(network{keys: map[string]any{"isDefaultGateway": false, "ipMasq": false}}, 2)
		for _, f := range families {
			if f.name == "IPv6" && top.v != bridge {
				// Without it zipline forwards for such a network only where
				// the node forwards anyhow.
				top.requireSysctl(t, "ipv6/conf/all/force_forwarding")
			}
			reach(t, &pods[0].Namespace, &pods[1].Namespace, f.addr(pods[1]))
		}
	}},
	{name: "a route through the gateway can be added in a container", variants: all, run: func(t *testing.T, top *topology) {
		// As sbr, VPN software and people do.
		p := top.attachAll(network{}, 1)[0]
		p.MustRun(t, "ip", "route", "add", "203.0.113.0/24", "via", p.gw4.String())
		p.MustRun(t, "ip", "-6", "route", "add", "2001:db8:203::/48", "via", p.gw6.String())
		p.MustRun(t, "ip", "-6", "route", "del", "default")
		p.MustRun(t, "ip", "-6", "route", "add", "default", "via", p.gw6.String())
		for _, f := range families {
			reach(t, &p.Namespace, top.Outside, f.outside)
		}
	}},
	{name: "fragments pass between container and node", variants: all, run: func(t *testing.T, top *topology) {
		p := top.attachAll(network{}, 1)[0]
		for _, f := range families {
			server := top.Node.ServeUDP(t, netip.AddrPortFrom(f.gateway(p), 0))
			if _, err := p.EchoUDP(server.Addr, make([]byte, 8000), testrig.Socket{}); err != nil {
				t.Errorf("%s: %v", f.name, err)
			}
		}
	}},
	{name: "networks of one segment and subnet are neighbours", variants: all, run: func(t *testing.T, top *topology) {
		part := func(name, v4, v6 string) network {
			return network{name: name, ipam: map[string]any{"ranges": [][]map[string]string{
				{{"subnet": "10.77.0.0/16", "rangeStart": v4}}, {{"subnet": "fd00:77::/64", "rangeStart": v6}},
			}}}
		}
		a, b := top.attach(part("net0", "10.77.1.1", "fd00:77::1:1")), top.attach(part("net1", "10.77.2.1", "fd00:77::2:1"))
		top.settle()
		for _, f := range families {
			if peer := reach(t, &a.Namespace, &b.Namespace, f.addr(b)); peer != f.addr(a) {
				t.Errorf("%s: the server sees %s; want %s", f.name, peer, f.addr(a))
			}
		}
	}},
	// The reference refuses a second subnet on a bridge that has a gateway.
	{name: "subnets of one segment reach each other through the node", variants: tiers, run: func(t *testing.T, top *topology) {
		testTwoSubnets(t, top, "seg0")
	}},
	{name: "subnets of two segments reach each other through the node", variants: all, run: func(t *testing.T, top *topology) {
		testTwoSubnets(t, top, "seg1")
	}},
}

// testTwoSubnets holds zipline to what the reference shows: a container of
// another subnet is reached through the node, which masquerades as its gateway.
func testTwoSubnets(t *testing.T, top *topology, segment string) {
	a := top.attach(network{name: "net0"})
	b := top.attach(network{name: "net1", segment: segment, v4: "10.78.0.0/16", v6: "fd00:78::/64"})
	top.settle()
	for _, f := range families {
		if peer := reach(t, &a.Namespace, &b.Namespace, f.addr(b)); peer != f.gateway(b) {
			t.Errorf("%s: the server sees %s; want the gateway %s", f.name, peer, f.gateway(b))
		}
		reach(t, &b.Namespace, &a.Namespace, f.addr(a))
	}
}

func addrPort(addr netip.Addr, port int) string {
	if addr.Is6() {
		return fmt.Sprintf("[%s]:%d", addr, port)
	}
	return fmt.Sprintf("%s:%d", addr, port)
}
