// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

const hostPort = 8081

// TestPortmap chains the reference portmap, with each of its back ends: host
// ports reach the container from everywhere, alike on every tier.
func TestPortmap(t *testing.T) {
	for _, backend := range []string{"iptables", "nftables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			want := hostPortTranscript(t, kernelTier, backend)
			for _, v := range []variant{trackedTier, directTier} {
				if got := hostPortTranscript(t, v, backend); !slices.Equal(got, want) {
					t.Errorf("%s: %q\nwant as in tier kernel: %q", v.name, got, want)
				}
			}
		})
	}
}

// chained adds a plugin to a configuration.
func chained(config string, plugin object) string {
	conf := object{}
	if err := json.Unmarshal([]byte(config), &conf); err != nil {
		panic(fmt.Sprintf("parse configuration: %v", err))
	}
	return toJSON(object{"cniVersion": conf["cniVersion"], "name": conf["name"], "plugins": []any{conf, plugin}})
}

// hostPortTranscript publishes a container and says what its server sees of
// whom. Everybody has to reach it.
func hostPortTranscript(t *testing.T, v variant, backend string) []string {
	t.Helper()
	top := newTopology(t, v, testrig.Options{})
	portmap := object{"type": "portmap", "backend": backend, "snat": true, "capabilities": object{"portMappings": true}}
	config := chained(network{}.config(v), portmap)
	runtime, mappings := testrig.NewRuntime(t, top.Node, config), []object{}
	for _, protocol := range []string{"tcp", "udp"} {
		mappings = append(mappings, object{"hostPort": hostPort, "containerPort": backendPort, "protocol": protocol})
	}
	capabilities := object{"portMappings": mappings}
	c := top.container()
	result, err := runtime.Add(c, capabilities)
	if err != nil {
		t.Fatalf("%s: add: %v", v.name, err)
	}
	p := newPod(t, c, config, result)
	w := &serviceWorld{topology: top, backends: []*pod{p}, client: top.attach(network{})}
	w.other = top.attach(network{name: "other", segment: "seg1", v4: "10.78.0.0/16", v6: "fd00:78::/64"})
	var lines []string
	for _, f := range families {
		tcp := p.ServeTCP(t, netip.AddrPortFrom(f.addr(p), backendPort))
		udp := p.ServeUDP(t, netip.AddrPortFrom(f.addr(p), backendPort))
		for _, s := range w.hostPortSessions(f) {
			lines = append(lines, w.hostPortSession(t, f, s))
		}
		tcp.Close()
		udp.Close()
	}
	if err := runtime.Check(c, capabilities); err != nil {
		t.Errorf("%s: check: %v", v.name, err)
	}
	if err := runtime.Del(c, capabilities); err != nil {
		t.Errorf("%s: del: %v", v.name, err)
	}
	for _, f := range families {
		if left := top.Node.Conntrack(t, f.addr(p).String()); left != nil {
			t.Errorf("%s: left after DEL: %q", v.name, left)
		}
	}
	return lines
}

func (w *serviceWorld) hostPortSessions(f family) []serviceSession {
	published, p := netip.AddrPortFrom(f.node, hostPort), w.backends[0]
	sessions := []serviceSession{
		{"outside", w.Outside, published, netip.Addr{}, true},
		{"the node", &w.Node.Namespace, published, netip.Addr{}, false},
		{"another container", &w.client.Namespace, published, netip.Addr{}, true},
		{"another network", &w.other.Namespace, published, netip.Addr{}, true},
		{"itself", &p.Namespace, published, netip.Addr{}, false},
	}
	if f.nft == "ip" {
		// Linux leads no packet out of ::1.
		sessions = append(sessions, serviceSession{"the node's loopback", &w.Node.Namespace, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), hostPort), netip.Addr{}, false})
	}
	return sessions
}

// hostPortSession talks to the published port and says what the server saw.
func (w *serviceWorld) hostPortSession(t *testing.T, f family, s serviceSession) string {
	t.Helper()
	tcp, err := s.from.EchoTCP(s.dst, []byte("published"), testrig.Socket{})
	if err != nil {
		t.Errorf("%s, %s, tcp from %s: %v", w.v.name, f.name, s.name, err)
	}
	udp, err := s.from.EchoUDP(s.dst, []byte("published"), testrig.Socket{})
	if err != nil {
		t.Errorf("%s, %s, udp from %s: %v", w.v.name, f.name, s.name, err)
	}
	if s.name == "outside" && !isOutside(tcp.Addr()) {
		t.Errorf("%s, %s: the container sees %s for outside", w.v.name, f.name, tcp)
	}
	for protocol, share := range w.longTalk(t, s) {
		if stack := w.v == kernelTier; s.carried && (stack && share < stackShare || !stack && share > acceleratedShare) {
			t.Errorf("%s, %s, %s from %s: the stack forwarded %.2f of the bytes", w.v.name, f.name, protocol, s.name, share)
		}
	}
	return fmt.Sprintf("%s from %s: tcp as %s, udp as %s", f.name, s.name, tcp.Addr(), udp.Addr())
}
