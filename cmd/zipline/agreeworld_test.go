// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/loader"
)

// agreeTiers are the rows of the comparison; the first is what the others have to
// agree with.
var agreeTiers = tiers

// agreeWorld is a node with every kind of endpoint, and hosts around it:
//
//	far ---1500--- hop ---1300--- outside ---1500--- node === a b s  (one network; s has MTU 1300)
//	                                                      === c      (another one)
//	                                                      === d      (no NAT to the outside)
//	                                                      === e      (SNAT to an egress address)
//	                                                      === g h    (BIG TCP)
type agreeWorld struct {
	*topology
	hosts map[string]*agreeHost
}

// agreeHost is an end of flows.
type agreeHost struct {
	*testrig.Namespace
	name   string
	addrs  map[string]netip.Addr // by family
	device string                // where its packets are recorded
	record *testrig.Recorder
	pod    *pod // nil for a machine
}

// Addresses of the world beside those of testrig, by family.
var (
	farAddr     = byFamily("203.0.113.2", "2001:db8:fa::2")
	egressAddr  = byFamily("192.0.2.50", "2001:db8:ffff::50")
	balanceAddr = byFamily("192.0.2.60", "2001:db8:ffff::60") // what leads on from here is masqueraded
)

func byFamily(v4, v6 string) map[string]netip.Addr {
	return map[string]netip.Addr{"IPv4": netip.MustParseAddr(v4), "IPv6": netip.MustParseAddr(v6)}
}

func newAgreeWorld(t *testing.T, v variant) *agreeWorld {
	t.Helper()
	w := &agreeWorld{topology: newTopology(t, v, testrig.Options{}), hosts: map[string]*agreeHost{}}
	w.makePods(t)
	w.addHost(t, "node", testrig.Uplink, &w.Node.Namespace, map[string]netip.Addr{"IPv4": testrig.NodeIPv4, "IPv6": testrig.NodeIPv6})
	w.addHost(t, "veth of a", hostDevice(w.hosts["a"].pod), &w.Node.Namespace, nil)
	w.addHost(t, "outside", testrig.Uplink, w.Outside, map[string]netip.Addr{"IPv4": testrig.InternetIPv4, "IPv6": testrig.InternetIPv6})
	// The same machine, by the address that is nearer.
	w.hosts["peer"] = &agreeHost{
		Namespace: w.Outside, name: "outside",
		addrs: map[string]netip.Addr{"IPv4": testrig.OutsideIPv4, "IPv6": testrig.OutsideIPv6},
	}
	w.wireFar(t)
	w.setRules(t)
	for _, h := range w.hosts {
		// Each error is to be seen, not as many as the kernel likes to send.
		h.SetSysctl(t, "ipv4/icmp_ratelimit", "0")
		h.SetSysctl(t, "ipv6/icmp/ratelimit", "0")
	}
	return w
}

func (w *agreeWorld) makePods(t *testing.T) {
	t.Helper()
	var lines strings.Builder
	for _, addrs := range []map[string]netip.Addr{egressAddr, balanceAddr} {
		fmt.Fprintf(&lines, "addr add %s/24 dev %s\n", addrs["IPv4"], testrig.Uplink)
		fmt.Fprintf(&lines, "addr add %s/64 dev %s nodad preferred_lft 0\n", addrs["IPv6"], testrig.Uplink)
	}
	w.Node.MustRunInput(t, lines.String(), "ip", "-batch", "-")
	part := func(name, v4, v6 string, keys map[string]any) network {
		return network{name: name, keys: keys, ipam: map[string]any{"ranges": [][]map[string]string{
			{{"subnet": "10.77.0.0/16", "rangeStart": v4}}, {{"subnet": "fd00:77::/64", "rangeStart": v6}},
		}}}
	}
	// Packets are as large as elsewhere but in one network, which is about that.
	small := map[string]any{"bigTCP": "off"}
	net := network{keys: small}
	for _, p := range []struct {
		name string
		network
	}{
		{"a", net},
		{"b", net},
		{"s", part("small", "10.77.9.1", "fd00:77::9:1", map[string]any{"mtu": 1300, "bigTCP": "off"})},
		{"c", network{name: "other", segment: "seg1", v4: "10.78.0.0/16", v6: "fd00:78::/64", keys: small}},
		{"d", network{name: "plain", segment: "seg2", v4: "10.79.0.0/16", v6: "fd00:79::/64", keys: map[string]any{
			"bigTCP": "off", "nonMasqueradeCIDRs": []string{"198.51.100.0/24", "2001:db8:100::/48"},
		}}},
		{"e", network{name: "egress", segment: "seg3", v4: "10.80.0.0/16", v6: "fd00:80::/64", keys: map[string]any{
			"bigTCP": "off", "egressIP": []string{egressAddr["IPv4"].String(), egressAddr["IPv6"].String()},
		}}},
		{"g", part("big", "10.77.8.1", "fd00:77::8:1", map[string]any{"bigTCP": "on"})},
		{"h", part("big", "10.77.8.1", "fd00:77::8:1", map[string]any{"bigTCP": "on"})},
	} {
		pod := w.attach(p.network)
		w.addHost(t, p.name, testrig.IfName, &pod.Namespace, map[string]netip.Addr{"IPv4": pod.v4, "IPv6": pod.v6}).pod = pod
	}
}

func (w *agreeWorld) addHost(t *testing.T, name, device string, ns *testrig.Namespace, addrs map[string]netip.Addr) *agreeHost {
	t.Helper()
	h := &agreeHost{Namespace: ns, name: name, device: device, addrs: addrs, record: ns.Record(t, device)}
	w.hosts[name] = h
	return h
}

// wireFar makes what lies behind the outside host: a hop with a smaller MTU, and a
// host that does not know of it.
func (w *agreeWorld) wireFar(t *testing.T) {
	t.Helper()
	hop, far := w.NewHost(t, "hop"), w.NewHost(t, "far")
	w.Outside.Wire(t, hop, "hop0", 1300)
	hop.Wire(t, far, "far0", 1500)
	for _, router := range []*testrig.Namespace{w.Outside, hop} {
		router.SetSysctl(t, "ipv4/ip_forward", "1")
		router.SetSysctl(t, "ipv6/conf/all/forwarding", "1")
	}
	batch := func(ns *testrig.Namespace, lines ...string) {
		ns.MustRunInput(t, strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
	}
	batch(w.Outside, "addr add 203.0.112.1/24 dev hop0", "addr add 2001:db8:f9::1/64 dev hop0 nodad",
		"route add 203.0.113.0/24 via 203.0.112.2", "route add 2001:db8:fa::/64 via 2001:db8:f9::2",
		"route add 10.77.0.0/16 via 192.0.2.1", "route add fd00:77::/64 via 2001:db8:ffff::1",
		"route add 10.79.0.0/16 via 192.0.2.1", "route add fd00:79::/64 via 2001:db8:ffff::1")
	batch(hop, "addr add 203.0.112.2/24 dev hop0", "addr add 2001:db8:f9::2/64 dev hop0 nodad",
		"addr add 203.0.113.1/24 dev far0", "addr add 2001:db8:fa::1/64 dev far0 nodad",
		"route add default via 203.0.112.1", "route add default via 2001:db8:f9::1")
	batch(far, fmt.Sprintf("addr add %s/24 dev far0", farAddr["IPv4"]), fmt.Sprintf("addr add %s/64 dev far0 nodad", farAddr["IPv6"]),
		"route add default via 203.0.113.1", "route add default via 2001:db8:fa::1")
	w.addHost(t, "far", "far0", far, farAddr)
	w.addHost(t, "hop", "hop0", hop, byFamily("203.0.112.2", "2001:db8:f9::2"))
}

// setRules writes the two masquerade rules that go with service addresses: for a
// container that is its own server, and for a load balancer's address.
func (w *agreeWorld) setRules(t *testing.T) {
	t.Helper()
	for _, f := range families {
		w.Node.MustRunInput(t, fmt.Sprintf(`table %[1]s hairpin {
	chain post {
		type nat hook postrouting priority 90
		%[1]s saddr %[2]s %[1]s daddr %[2]s masquerade
		ct original %[1]s daddr %[3]s masquerade
	}
}`, f.nft, f.addr(w.hosts["a"].pod), balanceAddr[f.name]), "nft", "-f", "-")
	}
}

// publish writes the DNAT rules of the cases' flows, as portmap or kube-proxy would
// for each of them, into a table of their own.
func (w *agreeWorld) publish(t *testing.T, cases []agreeCase) {
	t.Helper()
	for _, f := range families {
		var rules strings.Builder
		for i, c := range cases {
			if c.way.via == nil || c.family != f.name {
				continue
			}
			port := firstPort + i*portsPerCase
			rule := fmt.Sprintf("%s daddr %s meta l4proto { tcp, udp } th dport %d dnat to %s", f.nft, c.way.via[f.name], port+2,
				addrPort(w.hosts[c.way.server].addrs[f.name], port+1))
			fmt.Fprintf(&rules, "add rule %[1]s published pre %[2]s\nadd rule %[1]s published out %[2]s\n", f.nft, rule)
		}
		w.Node.MustRunInput(t, fmt.Sprintf(`table %[1]s published {
	chain pre { type nat hook prerouting priority dstnat; }
	chain out { type nat hook output priority -100; }
}
%[2]s`, f.nft, rules.String()), "nft", "-f", "-")
	}
}

// carried says how many packets the programs of the node saw, and which way those
// went that belong to flows.
type carried struct{ direct, tracked, stack uint64 }

func (c carried) minus(d carried) carried {
	return carried{c.direct - d.direct, c.tracked - d.tracked, c.stack - d.stack}
}

// carried reads the node's counters.
func (w *agreeWorld) carried(t *testing.T) carried {
	t.Helper()
	var c carried
	for reason, packets := range w.reasons(t) {
		switch {
		case !ofFlow(reason):
		case reason == bpf.ZiplineReasonREASON_DIRECT:
			c.direct += packets
		case reason.Verdict() == bpf.VerdictRedirect:
			c.tracked += packets
		default:
			c.stack += packets
		}
	}
	return c
}

// ofFlow says whether packets with the reason can belong to a flow.
func ofFlow(reason bpf.Reason) bool {
	return !reason.OwnAccount() && reason != bpf.ZiplineReasonREASON_NEXT_ETHERTYPE
}

// reasons reads the counters that say what became of received packets.
func (top *topology) reasons(t *testing.T) map[bpf.Reason]uint64 {
	t.Helper()
	reasons := map[bpf.Reason]uint64{}
	err := top.Node.Do(func() error {
		counters, err := loader.ReadCounters()
		for _, c := range counters {
			if c.Hook == bpf.HookEndpoint || c.Hook == bpf.HookUplink {
				reasons[c.Reason] += c.Packets
			}
		}
		return err
	})
	if err != nil {
		t.Fatalf("read counters of the node: %v", err)
	}
	return reasons
}

// take returns what every end received with a port in the range. The kernel
// writes over the fragments that it passes on while they are recorded, so those
// count only where they end.
func (w *agreeWorld) take(lo, hi uint16) map[string]map[testrig.Arrival]testrig.Seen {
	all := map[string]map[testrig.Arrival]testrig.Seen{}
	for name, h := range w.hosts {
		if h.record == nil {
			continue
		}
		seen := h.record.Take(lo, hi)
		for a := range seen {
			if strings.Contains(a.Flags, "fragment") && !h.owns(a.Dst.Addr()) {
				delete(seen, a)
			}
		}
		if len(seen) > 0 {
			all[name] = seen
		}
	}
	return all
}

// sender is the device that the host's packets leave by.
func (h *agreeHost) sender() string {
	if h.device == "" {
		return testrig.Uplink // of the outside
	}
	return h.device
}

func (h *agreeHost) owns(addr netip.Addr) bool {
	return h.name != "node" && h.name != "veth of a" &&
		(addr == h.addrs["IPv4"] || addr == h.addrs["IPv6"] || h.name == "outside" && isOutside(addr))
}

// stopRecording lets the world carry more than a case's traffic.
func (w *agreeWorld) stopRecording() {
	for _, h := range w.hosts {
		if h.record != nil {
			h.record.Stop()
		}
	}
}
