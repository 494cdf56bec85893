// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// Ports of the service in these tests.
const (
	servicePort = 80
	backendPort = 8080
	nodePort    = 30080
)

// serviceWorld is a node whose service proxy leads one service to two containers.
type serviceWorld struct {
	*topology
	backends []*pod
	client   *pod // of the backends' network
	other    *pod // of another network
}

func newServiceWorld(t *testing.T, v variant) *serviceWorld {
	t.Helper()
	top := newTopology(t, v, testrig.Options{})
	pods := top.attachAll(network{}, 3)
	other := top.attach(network{name: "other", segment: "seg1", v4: "10.78.0.0/16", v6: "fd00:78::/64"})
	return &serviceWorld{topology: top, backends: pods[:2], client: pods[2], other: other}
}

// serviceSession is a client of the service and what the server has to see.
type serviceSession struct {
	name string
	from *testrig.Namespace
	dst  netip.AddrPort
	// own is the client's address where the server sees that; else the server
	// sees one of the node's.
	own netip.Addr
	// carried says that eBPF carries the session once it is established.
	carried bool
}

func (w *serviceWorld) sessions(f family) []serviceSession {
	service, node := netip.AddrPortFrom(f.service, servicePort), netip.AddrPortFrom(f.node, nodePort)
	return []serviceSession{
		{"from a container", &w.client.Namespace, service, f.addr(w.client), true},
		{"from another network", &w.other.Namespace, service, netip.Addr{}, true},
		{"from the node", &w.Node.Namespace, service, netip.Addr{}, false},
		{"from outside to the node port", w.Outside, node, netip.Addr{}, true},
		{"from a container to the node port", &w.client.Namespace, node, netip.Addr{}, true},
		{"from another network to the node port", &w.other.Namespace, node, netip.Addr{}, true},
	}
}

// check has every kind of session, and the backends talk to themselves.
func (w *serviceWorld) check(t *testing.T) {
	t.Helper()
	wantNothingInvalid := w.watchInvalid(t, fmt.Sprint(backendPort))
	for _, f := range families {
		var servers []*testrig.Server
		for _, p := range w.backends {
			addr := netip.AddrPortFrom(f.addr(p), backendPort)
			servers = append(servers, p.ServeTCP(t, addr), p.ServeUDP(t, addr))
		}
		for _, s := range w.sessions(f) {
			w.checkSession(t, f, s, servers)
		}
		w.checkHairpin(t, f, servers)
		for _, s := range servers {
			s.Close()
		}
	}
	wantNothingInvalid()
}

// checkSession talks to the service until both backends have answered, and looks
// which way a long talk goes.
func (w *serviceWorld) checkSession(t *testing.T, f family, s serviceSession, servers []*testrig.Server) {
	t.Helper()
	before := peerCounts(servers)
	for round := 0; again(round, servers, before); round++ {
		for protocol, echo := range map[string]func(netip.AddrPort, []byte, testrig.Socket) (netip.AddrPort, error){
			"tcp": s.from.EchoTCP, "udp": s.from.EchoUDP,
		} {
			peer, err := echo(s.dst, []byte("service"), testrig.Socket{})
			if err != nil {
				t.Errorf("%s, %s %s: %v", f.name, protocol, s.name, err)
				return
			}
			switch own := w.isContainer(f, peer.Addr()); {
			case s.own.IsValid() && peer.Addr() != s.own:
				t.Errorf("%s, %s %s: the server sees %s; want %s", f.name, protocol, s.name, peer, s.own)
			case !s.own.IsValid() && (own || isOutside(peer.Addr())):
				t.Errorf("%s, %s %s: the server sees %s, which is not the node's", f.name, protocol, s.name, peer)
			}
		}
	}
	for i, n := range peerCounts(servers) {
		if n == before[i] {
			t.Errorf("%s, %s: server %d of %d got nothing", f.name, s.name, i, len(servers))
		}
	}
	if !s.carried {
		return
	}
	for protocol, share := range w.longTalk(t, s) {
		if stack := w.v == kernelTier; stack && share < stackShare || !stack && share > acceleratedShare {
			t.Errorf("%s, %s %s: the stack forwarded %.2f of the bytes", f.name, protocol, s.name, share)
		}
	}
}

// longTalk exchanges much over one connection of each protocol and returns which
// part of the bytes the stack forwarded.
func (w *serviceWorld) longTalk(t *testing.T, s serviceSession) map[string]float64 {
	t.Helper()
	const bulk, datagrams, size = 16 << 20, 300, 1000
	talks := map[string]struct {
		bytes int64
		talk  func() error
	}{
		"tcp": {2 * bulk, func() error { return s.from.Bulk(s.dst, bulk) }},
		"udp": {2 * datagrams * size, func() error { return talkUDP(s.from, s.dst, datagrams, size) }},
	}
	shares := map[string]float64{}
	for protocol, talk := range talks {
		// Every table of this name ends with the talk that it counts.
		w.Node.MustRunInput(t, fmt.Sprintf(`table inet account {
	counter seen { }
	chain forward {
		type filter hook forward priority -500
		meta l4proto %[1]s th dport %[2]d counter name seen
		meta l4proto %[1]s th sport %[2]d counter name seen
	}
}`, protocol, backendPort), "nft", "-f", "-")
		if err := talk.talk(); err != nil {
			t.Errorf("%s %s: %v", protocol, s.name, err)
		}
		shares[protocol] = float64(w.forwarded(t)["seen"]) / float64(talk.bytes)
		w.Node.MustRun(t, "nft", "delete", "table", "inet", "account")
	}
	return shares
}

// talkUDP exchanges datagrams with an echo server over one socket.
func talkUDP(from *testrig.Namespace, dst netip.AddrPort, datagrams, size int) error {
	conn, err := from.Dial("udp", dst, testrig.Socket{})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	payload, buf, lost := make([]byte, size), make([]byte, 2*size), 0
	for range datagrams {
		if err := conn.SetDeadline(time.Now().Add(testrig.Patience)); err != nil {
			return err
		}
		if _, err := conn.Write(payload); err != nil {
			return fmt.Errorf("send datagram: %w", err)
		}
		if _, err := conn.Read(buf); err != nil {
			if lost++; lost > 3 {
				return fmt.Errorf("read datagram: %w", err)
			}
		}
	}
	return nil
}

// checkHairpin lets the backends use the service that they are themselves.
func (w *serviceWorld) checkHairpin(t *testing.T, f family, servers []*testrig.Server) {
	t.Helper()
	for i, p := range w.backends {
		own := servers[2*i : 2*i+2] // of the container's own
		before := peerCounts(own)
		for round := 0; again(round, own, before); round++ {
			for _, dst := range []netip.AddrPort{netip.AddrPortFrom(f.service, servicePort), netip.AddrPortFrom(f.node, nodePort)} {
				if _, err := p.EchoTCP(dst, []byte("hairpin"), testrig.Socket{}); err != nil {
					t.Errorf("%s, tcp to itself by %s: %v", f.name, dst, err)
				}
				if _, err := p.EchoUDP(dst, []byte("hairpin"), testrig.Socket{}); err != nil {
					t.Errorf("%s, udp to itself by %s: %v", f.name, dst, err)
				}
			}
		}
		for j, s := range own {
			peers := s.Peers()
			if len(peers) == before[j] {
				t.Errorf("%s: %s never reached itself", f.name, p.ID)
			}
			if slices.ContainsFunc(peers, func(peer netip.AddrPort) bool { return peer.Addr() == f.addr(p) }) {
				t.Errorf("%s: %s sees its own address", f.name, p.ID)
			}
		}
	}
}

// again says whether to go on talking to a service of two backends, which picks one
// at random each time: until each server has got something. That one of them
// gets nothing in so many rounds has a chance of 1 in 2^60.
func again(round int, servers []*testrig.Server, before []int) bool {
	const least, most = 6, 60
	quiet := false
	for i, n := range peerCounts(servers) {
		quiet = quiet || n == before[i]
	}
	return round < least || round < most && quiet
}

func (w *serviceWorld) isContainer(f family, addr netip.Addr) bool {
	return slices.ContainsFunc(append(slices.Clone(w.backends), w.client, w.other), func(p *pod) bool { return f.addr(p) == addr })
}

func peerCounts(servers []*testrig.Server) []int {
	counts := make([]int, len(servers))
	for i, s := range servers {
		counts[i] = len(s.Peers())
	}
	return counts
}
