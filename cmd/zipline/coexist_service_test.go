// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestServiceRules has the rules that kube-proxy would write, in each of its
// modes, by hand.
func TestServiceRules(t *testing.T) {
	for _, v := range tiers {
		for _, rules := range []struct {
			name  string
			write func(w *serviceWorld, t *testing.T, f family)
		}{
			{"iptables", (*serviceWorld).writeIptables},
			{"nftables", (*serviceWorld).writeNftables},
		} {
			t.Run(v.name+" "+rules.name, func(t *testing.T) {
				t.Parallel()
				w := newServiceWorld(t, v)
				for _, f := range families {
					rules.write(w, t, f)
				}
				w.check(t)
			})
		}
	}
}

// clusterCIDR is the backends' network, whose clients keep their address.
func clusterCIDR(f family) string {
	return map[string]string{"ip": "10.77.0.0/16", "ip6": "fd00:77::/64"}[f.nft]
}

// writeIptables is the shape of kube-proxy's mode iptables.
func (w *serviceWorld) writeIptables(t *testing.T, f family) {
	t.Helper()
	nat := []string{
		"*nat", ":KUBE-SERVICES - [0:0]", ":KUBE-NODEPORTS - [0:0]", ":KUBE-POSTROUTING - [0:0]", ":KUBE-MARK-MASQ - [0:0]",
		"-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
		"-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
		"-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
		"-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
		"-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
		"-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
		"-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
	}
	for _, protocol := range []string{"tcp", "udp"} {
		service, external := "KUBE-SVC-"+protocol, "KUBE-EXT-"+protocol
		nat = append(nat, ":"+service+" - [0:0]", ":"+external+" - [0:0]")
		match := fmt.Sprintf("-d %s -p %s -m %s --dport %d", f.service, protocol, protocol, servicePort)
		nat = append(nat,
			fmt.Sprintf("-A KUBE-SERVICES %s -j %s", match, service),
			fmt.Sprintf("-A KUBE-NODEPORTS -p %s -m %s --dport %d -j %s", protocol, protocol, nodePort, external),
			fmt.Sprintf("-A %s -j KUBE-MARK-MASQ", external),
			fmt.Sprintf("-A %s -j %s", external, service),
			fmt.Sprintf("-A %s ! -s %s %s -j KUBE-MARK-MASQ", service, clusterCIDR(f), match))
		for i, p := range w.backends {
			endpoint := fmt.Sprintf("KUBE-SEP-%s-%d", protocol, i)
			odds := ""
			if rest := len(w.backends) - i; rest > 1 {
				odds = fmt.Sprintf("-m statistic --mode random --probability %.10f ", 1/float64(rest))
			}
			nat = append(nat, ":"+endpoint+" - [0:0]",
				fmt.Sprintf("-A %s %s-j %s", service, odds, endpoint),
				fmt.Sprintf("-A %s -s %s -j KUBE-MARK-MASQ", endpoint, f.addr(p)),
				fmt.Sprintf("-A %s -p %s -m %s -j DNAT --to-destination %s", endpoint, protocol, protocol, addrPort(f.addr(p), backendPort)))
		}
	}
	nat = append(nat, "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS", "COMMIT",
		"*filter", ":KUBE-FORWARD - [0:0]", "-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD",
		"-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
		"-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
		"-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "COMMIT\n")
	w.Node.MustRunInput(t, strings.Join(nat, "\n"), iptables(f)+"-restore", "--noflush")
}

// writeNftables is the shape of kube-proxy's mode nftables.
func (w *serviceWorld) writeNftables(t *testing.T, f family) {
	t.Helper()
	address := map[string]string{"ip": "ipv4_addr", "ip6": "ipv6_addr"}[f.nft]
	var chains []string
	for _, protocol := range []string{"tcp", "udp"} {
		var odds []string
		for i, p := range w.backends {
			odds = append(odds, fmt.Sprintf("%d : goto endpoint-%s-%d", i, protocol, i))
			chains = append(chains, fmt.Sprintf(`chain endpoint-%[1]s-%[2]d {
		%[3]s saddr %[4]s jump mark-for-masquerade
		meta l4proto %[1]s dnat to %[5]s
	}`, protocol, i, f.nft, f.addr(p), addrPort(f.addr(p), backendPort)))
		}
		chains = append(chains, fmt.Sprintf(`chain service-%[1]s {
		%[2]s daddr %[3]s %[1]s dport %[4]d %[2]s saddr != %[5]s jump mark-for-masquerade
		numgen random mod %[6]d vmap { %[7]s }
	}
	chain external-%[1]s { jump mark-for-masquerade; goto service-%[1]s; }`,
			protocol, f.nft, f.service, servicePort, clusterCIDR(f), len(w.backends), strings.Join(odds, ", ")))
	}
	w.Node.MustRunInput(t, fmt.Sprintf(`table %[1]s kube-proxy {
	map service-ips { type %[2]s . inet_proto . inet_service : verdict; elements = {
		%[3]s . tcp . %[4]d : goto service-tcp, %[3]s . udp . %[4]d : goto service-udp }; }
	map service-nodeports { type inet_proto . inet_service : verdict; elements = {
		tcp . %[5]d : goto external-tcp, udp . %[5]d : goto external-udp }; }
	set nodeport-ips { type %[2]s; elements = { %[6]s }; }
	chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
	chain masquerading {
		meta mark & 0x4000 == 0 return
		meta mark set meta mark xor 0x4000
		masquerade fully-random
	}
	chain services {
		%[1]s daddr . meta l4proto . th dport vmap @service-ips
		%[1]s daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
	}
	%[7]s
	chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
	chain nat-output { type nat hook output priority -100; jump services; }
	chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
	chain filter-forward { type filter hook forward priority -110; ct state invalid drop; }
}`, f.nft, address, f.service, servicePort, nodePort, f.node, strings.Join(chains, "\n\t")), "nft", "-f", "-")
}
