// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// to returns an untranslated flow to this address.
func flowTo(from, to pair) translation {
	return translation{client: from, dst: to, server: to, seen: from}
}

// destination is an end of a flow that decides whether packets reach it past
// the stack; reason 0 says that they do.
type destination struct {
	name   string
	client pair
	server pair
	want   Reason
}

func (w *world) destinations() []destination {
	of := func(name string) pair { return w.peers[name].addrs() }
	a, b := of("a"), of("b")
	rows := []destination{
		{"a container of another network", a, of("stranger"), 0},
		{"a container without direct forwarding", a, of("tracked"), 0},
		{"a container that checks macs", a, of("pinned"), 0},
		{"a container that the kernel forwards", a, of("untracked"), ZiplineReasonREASON_NEXT_NOT_TRACKED},
		{"from a container that the kernel forwards", of("untracked"), b, ZiplineReasonREASON_NEXT_NOT_TRACKED},
		{"from a container that the kernel forwards, to outside", of("untracked"), remote, ZiplineReasonREASON_NEXT_NOT_TRACKED},
		{"from outside to a container that the kernel forwards", remote, of("untracked"), ZiplineReasonREASON_NEXT_NOT_TRACKED},

		{"outside", a, remote, 0},
		{"through the gateway", a, behind("through the gateway"), 0},
		{"a neighbour that does not answer", a, silent, ZiplineReasonREASON_NEXT_NEIGHBOUR},
		{"no route", a, nowhere, ZiplineReasonREASON_NEXT_ROUTE},
		{"the node itself", a, nodeIP, ZiplineReasonREASON_NEXT_ROUTE},
		{"a device that is no uplink", a, behind("by another device"), ZiplineReasonREASON_NEXT_NOT_UPLINK},
		{"a black hole", a, behind("black hole"), ZiplineReasonREASON_NEXT_ROUTE},
		{"a prohibited subnet", a, behind("prohibited"), ZiplineReasonREASON_NEXT_ROUTE},
		{"an unreachable subnet", a, behind("unreachable"), ZiplineReasonREASON_NEXT_ROUTE},

		{"from outside to the node", remote, nodeIP, ZiplineReasonREASON_NEXT_NO_ENDPOINT},
		{"from outside to outside", remote, behind("by another device"), ZiplineReasonREASON_NEXT_NO_ENDPOINT},
		{"from outside to a published address of nobody", remote, of("unpublished"), ZiplineReasonREASON_NEXT_NO_ENDPOINT},
	}
	return rows
}

func TestWhereEstablishedFlowsAreCarriedTo(t *testing.T) {
	w := newTrackingWorld(t)
	for _, d := range w.destinations() {
		t.Run(d.name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
				e := flowTo(d.client, d.server).entry(protocol, v6)
				w.wantWay(t, e, d.want)
			})
		})
	}
}

// wantWay enters and admits a flow and checks what becomes of its first packet.
func (w *world) wantWay(t *testing.T, e *entry, want Reason) {
	t.Helper()
	w.add(t, e)
	defer w.remove(t, e)
	w.admit(t, e, original|replying)
	p := e.packet(w, original, false)
	if want == 0 {
		w.wantCarried(t, e, original, p)
		return
	}
	// A packet that could be carried and is not says nothing about the other
	// direction: else it would keep that one past the stack for ever.
	if said := w.wantLeft(t, e, p, want); said != admitWord|original {
		t.Errorf("to_device is told %#x, want %#x", said, admitWord|original)
	}
}

// The kernel may choose a route by the type of service (IPv4 only).
func TestRoutesByTypeOfService(t *testing.T) {
	w := newTrackingWorld(t)
	const lowDelay = 0x10
	to := behind("through the gateway")
	subnet, _ := to[0].Prefix(24)
	err := w.do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: ipNet(subnet), Type: unix.RTN_PROHIBIT, Tos: lowDelay})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		e := flowTo(w.peers["a"].addrs(), to).entry(protocol, false)
		w.add(t, e)
		w.admit(t, e, original|replying)
		p := e.packet(w, original, false)
		w.wantCarried(t, e, original, p)
		p.tos = lowDelay
		w.wantLeft(t, e, p, ZiplineReasonREASON_NEXT_ROUTE)
	}
}

func TestAContainerIsNeverReachedByItsOwnDevice(t *testing.T) {
	w := newTrackingWorld(t)
	a := w.peers["a"]
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		hairpin := translation{client: a.addrs(), dst: service, server: a.addrs(), seen: nodeIP}
		w.wantWay(t, hairpin.entry(protocol, v6), ZiplineReasonREASON_NEXT_SELF)
	})
}

func TestFlowsWithTheMarkStayInTheStack(t *testing.T) {
	w := newTrackingWorld(t)
	a, marked := w.peers["a"].addrs(), w.peers["marked"].addrs()
	for _, c := range []struct {
		name string
		n    translation
		mark uint32
		want Reason
	}{
		{"to the container", flowTo(a, marked), slowMark, ZiplineReasonREASON_NEXT_SLOW_MARK},
		{"with more bits than asked for", flowTo(a, marked), 0xffffffff, ZiplineReasonREASON_NEXT_SLOW_MARK},
		{"with other bits", flowTo(a, marked), ^uint32(slowMark), 0},
		{"from the container", flowTo(marked, a), slowMark, ZiplineReasonREASON_NEXT_SLOW_MARK},
		{"from the container to outside", flowTo(marked, remote), slowMark, ZiplineReasonREASON_NEXT_SLOW_MARK},
		{"from outside to the container", flowTo(remote, marked), slowMark, ZiplineReasonREASON_NEXT_SLOW_MARK},
		{"between others", flowTo(a, w.peers["b"].addrs()), 0xffffffff, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
				e := c.n.entry(protocol, v6)
				e.mark = c.mark
				w.wantWay(t, e, c.want)
			})
		})
	}
}

// Whether the node believes such a source address is the stack's to say.
func TestAContainersAddressFromOutside(t *testing.T) {
	w := newTrackingWorld(t)
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := flowTo(w.peers["a"].addrs(), w.peers["b"].addrs()).entry(protocol, v6)
		w.add(t, e)
		w.admit(t, e, original|replying)
		w.wantLeft(t, e, e.packet(w, original, false).as(w.uplink), ZiplineReasonREASON_NEXT_OWN_SOURCE)
	})
}

// An IPv6 flow is never taken for one of the IPv4 endpoint whose key looks the same.
func TestMappedAddressesAreNobodys(t *testing.T) {
	w := newTrackingWorld(t)
	mapped := func(p *peer) netip.Addr { return netip.AddrFrom16(p.v4.As16()) }
	for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, client := range []pair{remote, w.peers["a"].addrs()} {
			e := translation{client: client, dst: service, server: pair{{}, mapped(w.peers["b"])}, seen: client}.entry(protocol, true)
			w.wantNotAdmitted(t, e, ZiplineReasonREASON_NEXT_NO_ENDPOINT)
			e.observed = replying
			w.wantWay(t, e, ZiplineReasonREASON_NEXT_NO_ENDPOINT)
		}
	}
}

// What a node has that makes the kernel decide otherwise than by its routes.
func TestNodesWithPolicies(t *testing.T) {
	rule := func(family int, src net.IPNet) func(*world) error {
		return func(*world) error {
			r := netlink.NewRule()
			r.Family, r.Src, r.Table, r.Priority = family, &src, unix.RT_TABLE_MAIN, 100
			return netlink.RuleAdd(r)
		}
	}
	any4 := net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	any6 := net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	policy := func(dir netlink.Dir) func(*world) error {
		return func(*world) error {
			return netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{Src: &any4, Dst: &any4, Dir: dir})
		}
	}
	set := func(name string) func(*world) error {
		return func(*world) error { return os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0o600) }
	}
	noForwarding := func(w *world) error {
		for i := range len(w.peers) {
			for _, family := range []string{"ipv4", "ipv6"} {
				path := fmt.Sprintf("/proc/sys/net/%s/conf/h%d/forwarding", family, i+1)
				if err := os.WriteFile(path, []byte("0"), 0o600); err != nil {
					return err
				}
			}
		}
		return nil
	}
	uplinks := func(u *ZiplineUplink, prepare func(*world) error) func(*world) error {
		return func(w *world) error {
			if u == nil {
				return w.objs.Uplinks.Delete(uint32(w.uplink.index))
			}
			return errors.Join(w.objs.Uplinks.Put(uint32(w.uplink.index), *u), prepare(w))
		}
	}
	wayBack := func(*world) error { // of what comes in by the uplink
		plain, err := netlink.LinkByName("plain0")
		if err != nil {
			return err
		}
		for i, bits := range []int{32, 128} {
			dst := ipNet(netip.PrefixFrom(remote[i], bits))
			err = errors.Join(err, netlink.RouteAdd(&netlink.Route{Dst: dst, LinkIndex: plain.Attrs().Index}), addNeighbor(plain.Attrs().Index, remote[i]))
		}
		return err
	}
	nothing := func(*world) error { return nil }
	several := &ZiplineUplink{Several: 1}
	const (
		none  = ZiplineReasonREASON_NEXT_NOT_UPLINK
		back  = ZiplineReasonREASON_NEXT_REVERSE_PATH
		rules = ZiplineReasonREASON_NEXT_POLICY_ROUTES
		ipsec = ZiplineReasonREASON_NEXT_XFRM
		route = ZiplineReasonREASON_NEXT_ROUTE
	)
	for _, c := range []struct {
		name           string
		prepare        func(*world) error
		out, in, local Reason
	}{
		{"no policy", func(*world) error { return nil }, 0, 0, 0},
		{"an ipv4 rule", rule(unix.AF_INET, net.IPNet{IP: net.IP{10, 9, 9, 9}, Mask: net.CIDRMask(32, 32)}), rules, 0, 0},
		{"an ipv6 rule", rule(unix.AF_INET6, any6), rules, 0, 0},
		{"an ipsec policy for what comes in", policy(netlink.XFRM_DIR_IN), ipsec, ipsec, 0},
		{"an ipsec policy for what goes out", policy(netlink.XFRM_DIR_OUT), ipsec, ipsec, 0},
		{"an ipsec policy for what is forwarded", policy(netlink.XFRM_DIR_FWD), ipsec, ipsec, 0},
		{"next hops by ports, ipv4", set("ipv4/fib_multipath_hash_policy"), rules, 0, 0},
		{"next hops by ports, ipv6", set("ipv6/fib_multipath_hash_policy"), rules, 0, 0},
		{"devices that do not forward", noForwarding, route, 0, 0},
		{"several uplinks", uplinks(several, nothing), 0, 0, 0},
		{"several uplinks, and rules", uplinks(several, rule(unix.AF_INET6, any6)), rules, rules, 0},
		{"several uplinks, and another way back", uplinks(several, wayBack), none, back, 0},
		{"one uplink, and another way back", uplinks(&ZiplineUplink{}, wayBack), none, 0, 0},
		{"a device that is no uplink any more", uplinks(nil, nothing), none, none, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTrackingWorld(t)
			if err := w.do(func() error { return c.prepare(w) }); err != nil {
				t.Fatal(err)
			}
			a, b := w.peers["a"].addrs(), w.peers["b"].addrs()
			for _, v6 := range []bool{false, true} {
				w.wantWay(t, flowTo(a, remote).entry(unix.IPPROTO_TCP, v6), c.out)
				w.wantWay(t, flowTo(remote, b).entry(unix.IPPROTO_TCP, v6), c.in)
				w.wantWay(t, flowTo(a, b).entry(unix.IPPROTO_TCP, v6), c.local)
			}
		})
	}
}
