// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestNetworkPolicy has a firewall that drops what no rule accepts, judges new
// flows only and drops what conntrack calls invalid, as policy engines write it.
// A revoked rule ends the flow whose entry is deleted, and no other.
func TestNetworkPolicy(t *testing.T) {
	t.Parallel()
	for _, v := range honest {
		for dialect, write := range map[string]func(*topology, *testing.T, []*stream){
			"iptables": (*topology).writePolicyIptables, "nftables": (*topology).writePolicyNftables,
		} {
			t.Run(v.name+" "+dialect, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				pods := top.attachAll(network{}, 2)
				var planned []*stream
				write(top, t, nil)
				top.wantBlocked(t, pods)
				wantNothingInvalid := top.watchInvalid(t, streamPorts)
				for _, f := range families {
					top.publish(t, f, f.addr(pods[0]))
					for range len(ways) * 4 {
						planned = append(planned, &stream{streamSpec: streamSpec{port: nextPort()}})
					}
				}
				write(top, t, planned)
				var streams []*stream
				for _, f := range families {
					for _, w := range ways {
						for _, protocol := range []string{"tcp", "udp", "tcp", "udp"} {
							port := planned[len(streams)].port
							streams = append(streams, top.stream(t, w, f, pods, streamSpec{network: protocol, port: port}))
						}
					}
				}
				top.account(t, streams...)
				top.wantCarried(t, streams...)
				wantNothingInvalid()
				top.wantRevoked(t, streams, write)
			})
		}
	}
}

// wantBlocked shows that the firewall works before anything is accepted.
func (top *topology) wantBlocked(t *testing.T, pods []*pod) {
	t.Helper()
	for _, f := range families {
		for _, to := range []struct {
			at   *testrig.Namespace
			addr netip.Addr
		}{{top.Outside, f.outside}, {&pods[0].Namespace, f.addr(pods[0])}} {
			server := to.at.ServeTCP(t, netip.AddrPortFrom(to.addr, nextPort()))
			if _, err := pods[1].EchoTCP(server.Addr, nil, testrig.Socket{Timeout: testrig.Patience}); err == nil {
				t.Errorf("%s passes a firewall that accepts nothing", server.Addr)
			}
			server.Close()
		}
	}
}

// wantRevoked takes the rules of every other stream away and deletes the entries
// of those.
func (top *topology) wantRevoked(t *testing.T, streams []*stream, write func(*topology, *testing.T, []*stream)) {
	t.Helper()
	var revoked, kept []*stream
	for i, s := range streams {
		if i%4 < 2 {
			kept = append(kept, s)
		} else {
			revoked = append(revoked, s)
		}
	}
	write(top, t, kept)
	for _, s := range revoked {
		family := "ipv4"
		if s.dial.Addr().Is6() {
			family = "ipv6"
		}
		top.Node.MustRun(t, "conntrack", "-D", "-f", family, "-p", s.network, "--orig-port-dst", fmt.Sprint(s.port))
	}
	deleted := time.Now()
	time.Sleep(2 * cutAtOnce)
	for _, s := range revoked {
		for end, p := range map[string]*progress{"there": &s.there, "back": &s.back} {
			if p.moves(deleted.Add(cutAtOnce)) {
				t.Errorf("%s: bytes %s came %v after its rule and its entry were deleted", s.name, end, p.lastAt().Sub(deleted))
			}
		}
	}
	now := time.Now()
	awaitEach(t, kept, "goes on where its rule stays", testrig.Timeout, func(s *stream) bool { return s.there.moves(now) && s.back.moves(now) })
}

// writePolicyNftables replaces the firewall by one that accepts these streams.
func (top *topology) writePolicyNftables(t *testing.T, accepted []*stream) {
	t.Helper()
	var rules []string
	for _, s := range accepted {
		rules = append(rules, fmt.Sprintf("meta l4proto { tcp, udp } th dport %d accept", s.port))
	}
	top.Node.MustRunInput(t, fmt.Sprintf(`table inet policies { }
delete table inet policies
table inet policies {
	chain pods {
		%s
	}
	chain forward {
		type filter hook forward priority filter; policy drop
		ct state invalid drop
		ct state established,related accept
		meta l4proto ipv6-icmp accept
		ct state new jump pods
	}
}`, strings.Join(rules, "\n\t\t")), "nft", "-f", "-")
}

// writePolicyIptables is the same with iptables.
func (top *topology) writePolicyIptables(t *testing.T, accepted []*stream) {
	t.Helper()
	rules := []string{
		"*filter", ":FORWARD DROP [0:0]", ":PODS - [0:0]", "-F FORWARD",
		"-A FORWARD -m conntrack --ctstate INVALID -j DROP",
		"-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"-A FORWARD -m conntrack --ctstate NEW -j PODS",
	}
	for _, s := range accepted {
		for _, protocol := range []string{"tcp", "udp"} {
			rules = append(rules, fmt.Sprintf("-A PODS -p %s --dport %d -j ACCEPT", protocol, s.port))
		}
	}
	for _, f := range families {
		top.Node.MustRunInput(t, strings.Join(append(rules, "COMMIT\n"), "\n"), iptables(f)+"-restore", "--noflush")
	}
}
