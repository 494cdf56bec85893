// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The node of the world: one uplink, one device that is none, and a route of
// each kind.

var (
	gatewayMAC = net.HardwareAddr{2, 0, 0, 0, 3, 2}
	// Addresses outside, by what the node's routes say of them.
	service = pair{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00:96::1")}
	nodeIP  = pair{netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("2001:db8::254")}
	remote  = pair{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	silent  = pair{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}
	nowhere = pair{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:ffff::1")}
)

// pair is an IPv4 and an IPv6 address of the same meaning.
type pair [2]netip.Addr

func (p pair) of(v6 bool) netip.Addr {
	if v6 {
		return p[1]
	}
	return p[0]
}

// routed are subnets with a route of their own; their first address is used.
var routed = []struct {
	name     string
	v4, v6   string
	kind     int
	device   string
	via      bool
	mtu      int
	neighbor bool
}{
	{"through the gateway", "198.51.100.0/24", "2001:db8:100::/64", unix.RTN_UNICAST, "up0", true, 0, false},
	{"by another device", "198.51.101.0/24", "2001:db8:101::/64", unix.RTN_UNICAST, "plain0", false, 0, true},
	{"black hole", "198.51.102.0/24", "2001:db8:102::/64", unix.RTN_BLACKHOLE, "", false, 0, false},
	{"prohibited", "198.51.103.0/24", "2001:db8:103::/64", unix.RTN_PROHIBIT, "", false, 0, false},
	{"unreachable", "198.51.104.0/24", "2001:db8:104::/64", unix.RTN_UNREACHABLE, "", false, 0, false},
	{"small mtu", "198.51.105.0/24", "2001:db8:105::/64", unix.RTN_UNICAST, "up0", true, 1300, false},
}

// behind returns the first address of the subnet with this route.
func behind(name string) pair {
	for _, r := range routed {
		if r.name == name {
			return pair{netip.MustParsePrefix(r.v4).Addr().Next(), netip.MustParsePrefix(r.v6).Addr().Next()}
		}
	}
	panic("no route is " + name)
}

// connect gives the node its uplink, its addresses and routes.
func (w *world) connect() error {
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/"+name, []byte("1"), 0o600); err != nil {
			return err
		}
	}
	w.uplink = &peer{name: "uplink", host: net.HardwareAddr{2, 0, 0, 0, 3, 1}, mac: gatewayMAC}
	var err error
	if w.uplink.index, err = addPair("up0", w.uplink.host); err != nil {
		return err
	}
	plain, err := addPair("plain0", net.HardwareAddr{2, 0, 0, 0, 4, 1})
	if err != nil {
		return err
	}
	if err := w.objs.Uplinks.Put(uint32(w.uplink.index), ZiplineUplink{}); err != nil {
		return err
	}
	for i, bits := range []int{24, 64} {
		addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(nodeIP[i], bits)), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(device(w.uplink.index), addr); err != nil {
			return fmt.Errorf("add address %v: %w", addr, err)
		}
		if err := addNeighbor(w.uplink.index, remote[i]); err != nil {
			return err
		}
		if err := waitLocal(nodeIP[i]); err != nil {
			return err
		}
	}
	return addRoutes(map[string]int{"up0": w.uplink.index, "plain0": plain})
}

// waitLocal waits until the kernel knows an address for its own: for IPv6 that
// is done a moment later.
func waitLocal(addr netip.Addr) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		routes, err := netlink.RouteGet(addr.AsSlice())
		if err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for address %s: the route is %v (%v)", addr, routes, err)
		}
	}
}

func addRoutes(devices map[string]int) error {
	for _, r := range routed {
		for i, prefix := range []string{r.v4, r.v6} {
			subnet := netip.MustParsePrefix(prefix)
			route := &netlink.Route{Dst: ipNet(subnet), Type: r.kind, LinkIndex: devices[r.device], MTU: r.mtu, MTULock: r.mtu > 0}
			if r.via {
				route.Gw = remote[i].AsSlice()
			}
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("add route %v: %w", route, err)
			}
			if !r.neighbor {
				continue
			}
			if err := addNeighbor(devices[r.device], subnet.Addr().Next()); err != nil {
				return err
			}
		}
	}
	return nil
}

func addNeighbor(index int, addr netip.Addr) error {
	err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: index, IP: addr.AsSlice(), HardwareAddr: gatewayMAC, State: netlink.NUD_PERMANENT})
	if err != nil {
		return fmt.Errorf("add neighbour %s: %w", addr, err)
	}
	return nil
}

// addPair makes a veth pair, both ends up, and returns the index of the first.
func addPair(name string, mac net.HardwareAddr) (int, error) {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: name + "p"}
	veth.Name, veth.HardwareAddr = name, mac
	if err := netlink.LinkAdd(veth); err != nil {
		return 0, fmt.Errorf("add veth %s: %w", name, err)
	}
	for _, end := range []string{name, name + "p"} {
		link, err := netlink.LinkByName(end)
		if err != nil {
			return 0, err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return 0, fmt.Errorf("set %s up: %w", end, err)
		}
	}
	return veth.Index, nil
}

func device(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
