// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// codeCheckFailed is the code of a CHECK that found damage (docs/errors.md).
const codeCheckFailed = 102

// damage is a change behind the plugin's back that CHECK has to find.
type damage struct {
	name string
	// names are words of which the message has to have each.
	names []string
	// tiers where it can happen; nil for all.
	tiers []variant
	// make does it and returns how to mend it; nil if only DEL and ADD can.
	make func(t *testing.T, top *topology, p *pod) (mend func())
}

// commands is a damage by shell commands in the container or on the node, with
// the variables $dev, $ip4, $ip6, $gw4, $gw6, $mac (the container's) and
// $hostmac.
func commands(onNode bool, do, undo string) func(*testing.T, *topology, *pod) func() {
	return func(t *testing.T, top *topology, p *pod) func() {
		t.Helper()
		place := &p.Namespace
		if onNode {
			place = &top.Node.Namespace
		}
		env := fmt.Sprintf("dev=%s ip4=%s ip6=%s gw4=%s gw6=%s mac=%s hostmac=%s; set -e; ", hostDevice(p), p.v4, p.v6, p.gw4, p.gw6,
			p.HardwareAddr(t, testrig.IfName), p.routerMAC(t))
		place.MustRun(t, "sh", "-c", env+do)
		if undo == "" {
			return nil
		}
		return func() { place.MustRun(t, "sh", "-c", env+undo) }
	}
}

func inContainer(do, undo string) func(*testing.T, *topology, *pod) func() {
	return commands(false, do, undo)
}

func onNode(do, undo string) func(*testing.T, *topology, *pod) func() {
	return commands(true, do, undo)
}

var damages = []damage{
	// The container's side.
	{name: "container device missing", names: []string{"eth0"}, make: inContainer("ip link del eth0", "")},
	{name: "container device down", names: []string{"eth0", "down"},
		make: savedInside("ip link set eth0 down")},
	{name: "container MAC changed", names: []string{"eth0", "MAC"},
		make: inContainer("ip link set eth0 address 02:00:00:00:00:77", "ip link set eth0 address $mac")},
	{name: "container MTU changed", names: []string{"eth0", "1400"},
		make: inContainer("ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500")},
	{name: "IPv4 address missing", names: []string{"10.77.0.2"},
		make: savedInside("ip addr del $ip4/16 dev eth0")},
	{name: "IPv6 address missing", names: []string{"fd00:77::2"},
		make: savedInside("ip addr del $ip6/64 dev eth0")},
	{name: "IPv4 default route missing", names: []string{"0.0.0.0/0"},
		make: inContainer("ip route del default", "ip route add default via $gw4")},
	{name: "IPv6 default route missing", names: []string{"::/0"},
		make: savedInside("ip -6 route del default")},

	// The node's side.
	{name: "host device down", names: []string{"$dev", "down"}, make: saved("ip link set $dev down")},
	{name: "host MTU changed", names: []string{"$dev", "1400"},
		make: onNode("ip link set $dev mtu 1400", "ip link set $dev mtu 1500")},
	{name: "host MAC changed", names: []string{"$dev", "MAC"},
		make: onNode("ip link set $dev address 02:00:00:00:00:78", "ip link set $dev address $hostmac")},
	{name: "host device out of its group", names: []string{"$dev", "group"},
		make: onNode("group=$(ip -o link show $dev | sed 's/.* group \\([^ ]*\\).*/\\1/'); echo $group > /run/group; ip link set $dev group 0",
			"ip link set $dev group $(cat /run/group); rm /run/group")},
	{name: "IPv4 host route missing", names: []string{"route", "10.77.0.2"}, make: saved("ip route del $ip4 dev $dev")},
	{name: "IPv6 host route missing", names: []string{"route", "fd00:77::2"}, make: saved("ip -6 route del $ip6 dev $dev")},
	{name: "IPv4 host route to another device", names: []string{"route", "10.77.0.2"},
		make: saved("ip route del $ip4 dev $dev; ip route add $ip4 dev uplink0", "ip route del $ip4 dev uplink0")},
	{name: "IPv4 neighbour with a wrong MAC", names: []string{"neighbour", "10.77.0.2"},
		make: saved("ip neigh replace $ip4 dev $dev lladdr 02:00:00:00:00:79 nud permanent", "ip neigh del $ip4 dev $dev")},
	{name: "gateway address missing", names: []string{"gateway", "10.77.0.1"},
		make: saved("ip addr del $gw4/32 dev $dev")},
	{name: "IPv6 gateway address missing", names: []string{"gateway", "fd00:77::1"},
		make: onNode("ip addr del $gw6/128 dev $dev", "ip addr add $gw6/128 dev $dev nodad")},
	{name: "subnet guard missing", names: []string{"10.77.0.0/16"}, make: func(t *testing.T, top *topology, _ *pod) func() {
		route := top.Node.MustRun(t, "ip", "route", "show", "type", "unreachable")
		top.Node.MustRun(t, "sh", "-c", "ip route del "+route)
		return func() { top.Node.MustRun(t, "sh", "-c", "ip route add "+route) }
	}},
	{name: "proxy ARP off", names: []string{"$dev", "proxy_arp"},
		make: onNode("echo 0 > /proc/sys/net/ipv4/conf/$dev/proxy_arp", "echo 1 > /proc/sys/net/ipv4/conf/$dev/proxy_arp")},
	{name: "IPv4 forwarding off", names: []string{"forward"},
		make: onNode("echo 0 > /proc/sys/net/ipv4/ip_forward", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/$dev/proxy_arp")},
	{name: "IPv4 forwarding of the uplink off", names: []string{"forward", testrig.Uplink},
		make: onNode("echo 0 > /proc/sys/net/ipv4/conf/uplink0/forwarding", "echo 1 > /proc/sys/net/ipv4/conf/uplink0/forwarding")},
	{name: "IPv6 forwarding off", names: []string{"forward"},
		make: onNode("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")},
	{name: "lease missing", names: []string{"lease", "10.77.0.2"},
		make: onNode("mv /var/lib/cni/networks/net/$ip4 /run/lease", "mv /run/lease /var/lib/cni/networks/net/$ip4")},
	{name: "lease of somebody else", names: []string{"lease", "10.77.0.2"},
		make: onNode("cp -p /var/lib/cni/networks/net/$ip4 /run/lease; printf 'thief\\r\\neth0' > /var/lib/cni/networks/net/$ip4", "mv /run/lease /var/lib/cni/networks/net/$ip4")},
	{name: "nft table missing", names: []string{"zipline"}, make: func(t *testing.T, top *topology, _ *pod) func() {
		table := top.nftTable(t)
		top.Node.MustRun(t, "nft", "delete", "table", "inet", "zipline")
		return func() { top.nftRestore(t, table) }
	}},
	{name: "nft element of the IPv4 address missing", names: []string{"10.77.0.2"}, make: func(t *testing.T, top *topology, p *pod) func() {
		return top.deleteElement(t, p.v4)
	}},
	{name: "nft element of the IPv6 address missing", names: []string{"fd00:77::2"}, make: func(t *testing.T, top *topology, p *pod) func() {
		return top.deleteElement(t, p.v6)
	}},

	// eBPF.
	{name: "program of ingress detached", names: []string{"$dev", "from_endpoint"}, tiers: []variant{directTier}, make: func(t *testing.T, top *topology, p *pod) func() {
		return top.detachPrograms(t, hostDevice(p), ebpf.AttachTCXIngress)
	}},
	{name: "program of egress detached", names: []string{"$dev", "to_device"}, tiers: []variant{directTier}, make: func(t *testing.T, top *topology, p *pod) func() {
		return top.detachPrograms(t, hostDevice(p), ebpf.AttachTCXEgress)
	}},
	{name: "endpoint map entry missing", names: []string{"endpoint", "10.77.0.2"}, tiers: []variant{directTier}, make: func(t *testing.T, top *topology, p *pod) func() {
		return top.changeEndpoint(t, p.v4, func([]byte) []byte { return nil })
	}},
	{name: "endpoint map entry wrong", names: []string{"endpoint", "fd00:77::2"}, tiers: []variant{directTier}, make: func(t *testing.T, top *topology, p *pod) func() {
		return top.changeEndpoint(t, p.v6, func(value []byte) []byte { value[0] ^= 0xff; return value })
	}},
}

// TestCheckFindsDamage damages a good attachment in one way at a time.
func TestCheckFindsDamage(t *testing.T) {
	for _, v := range tiers {
		for _, d := range damages {
			if d.tiers != nil && d.tiers[0] != v {
				continue
			}
			t.Run(v.name+" "+d.name, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				p := top.attach(network{})
				check := func() testrig.Reply { return p.Invoke(t, "CHECK", withPrevResult(t, p.config, p.result)) }
				if err := check().Err(); err != nil {
					t.Fatalf("before the damage: %v", err)
				}
				mend := d.make(t, top, p)
				reply := check()
				wantError(t, reply, codeCheckFailed, "", "")
				for _, name := range d.names {
					name = strings.ReplaceAll(name, "$dev", hostDevice(p))
					if text := reply.Error.Msg + reply.Error.Details; !strings.Contains(strings.ToLower(text), strings.ToLower(name)) {
						t.Errorf("message does not name %q: %s", name, describe(reply.Error))
					}
				}
				if mend == nil {
					return
				}
				mend()
				if err := check().Err(); err != nil {
					t.Errorf("after mending: %v", err)
				}
			})
		}
	}
}

// TestAMissingNeighbourComesBack is no damage: the node asks the container, as it
// does after the container had its device down or took another MAC.
func TestAMissingNeighbourComesBack(t *testing.T) {
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			pods := top.attachAll(network{}, 2)
			for _, f := range families {
				top.Node.MustRun(t, "ip", "neigh", "del", f.addr(pods[0]).String(), "dev", hostDevice(pods[0]))
				mustSucceed(t, "CHECK", pods[0].Invoke(t, "CHECK", withPrevResult(t, pods[0].config, pods[0].result)))
				reach(t, &top.Node.Namespace, &pods[0].Namespace, f.addr(pods[0]))
				reach(t, &pods[1].Namespace, &pods[0].Namespace, f.addr(pods[0]))
			}
			mustSucceed(t, "CHECK", pods[0].Invoke(t, "CHECK", withPrevResult(t, pods[0].config, pods[0].result)))
		})
	}
}

// TestAContainerMayChangeItsMAC is what the chained tuning plugin does after the
// main plugin.
func TestAContainerMayChangeItsMAC(t *testing.T) {
	for _, v := range append([]variant{bridge}, tiers...) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			chain := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","plugins":[%s,{"type":"tuning","mac":"02:00:00:00:00:55"}]}`, network{}.config(v))
			runtime := testrig.NewRuntime(t, top.Node, chain)
			c := top.container()
			result, err := runtime.Add(c, nil)
			if err != nil {
				t.Fatal(err)
			}
			changed, other := newPod(t, c, chain, result), top.attach(network{})
			top.settle()
			for _, f := range families {
				reach(t, &other.Namespace, &changed.Namespace, f.addr(changed))
				reach(t, &changed.Namespace, &other.Namespace, f.addr(other))
				reach(t, &top.Node.Namespace, &changed.Namespace, f.addr(changed))
				reach(t, &changed.Namespace, top.Outside, f.outside)
			}
			if err := runtime.Check(c, nil); err != nil {
				t.Error(err)
			}
			if err := runtime.Del(c, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCheckFindsEachMissingRule deletes the rules of the nft table one by one.
func TestCheckFindsEachMissingRule(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	p := top.attach(network{})
	table, count := top.nftTable(t), len(top.nftRules(t))
	if count == 0 {
		t.Fatal("the table has no rules")
	}
	for i := range count {
		// Each restoration gives the rules new handles.
		rule := top.nftRules(t)[i]
		top.Node.MustRun(t, "nft", "delete", "rule", "inet", "zipline", rule.chain, "handle", rule.handle)
		reply := p.Invoke(t, "CHECK", withPrevResult(t, p.config, p.result))
		if reply.Error == nil || reply.Error.Code != codeCheckFailed {
			t.Errorf("CHECK does not miss the rule %q of chain %s: %v", rule.text, rule.chain, reply.Err())
		}
		top.nftRestore(t, table)
	}
	if err := p.Invoke(t, "CHECK", withPrevResult(t, p.config, p.result)).Err(); err != nil {
		t.Errorf("with all rules restored: %v", err)
	}
}

// saved is a damage on the node that is mended by putting back the addresses,
// routes and neighbours that the device had, after some commands.
func saved(do string, before ...string) func(*testing.T, *topology, *pod) func() {
	return func(t *testing.T, top *topology, p *pod) func() {
		t.Helper()
		return restoring(t, &top.Node.Namespace, hostDevice(p), before, func(undo string) func() {
			return onNode(do, undo)(t, top, p)
		})
	}
}

// savedInside is saved for the container's device.
func savedInside(do string, before ...string) func(*testing.T, *topology, *pod) func() {
	return func(t *testing.T, top *topology, p *pod) func() {
		t.Helper()
		return restoring(t, &p.Namespace, testrig.IfName, before, func(undo string) func() {
			return inContainer(do, undo)(t, top, p)
		})
	}
}

func restoring(t *testing.T, ns *testrig.Namespace, dev string, before []string, damage func(undo string) func()) func() {
	t.Helper()
	var restore []string
	for _, kind := range []string{"-4 addr", "-6 addr", "-4 route", "-6 route", "neigh"} {
		restore = append(restore, saveCommands(t, ns, kind, dev)...)
	}
	mend := damage(strings.Join(append(before, "ip link set "+dev+" up"), "; "))
	return func() {
		mend()
		for _, command := range restore {
			ns.MustRun(t, "sh", "-c", command)
		}
	}
}

// saveCommands returns commands that restore what ip shows of one kind. Routes
// through gateways come last: they need the others.
func saveCommands(t *testing.T, ns *testrig.Namespace, kind, dev string) []string {
	t.Helper()
	var out, late []string
	switch kind {
	case "-4 addr", "-6 addr":
		text := ns.MustRun(t, "sh", "-c", fmt.Sprintf("ip -o %s show dev %s", kind, dev))
		for _, match := range regexp.MustCompile(`inet6? (\S+) `).FindAllStringSubmatch(text, -1) {
			option := " brd +"
			if strings.Contains(kind, "6") {
				option = " nodad"
			}
			out = append(out, fmt.Sprintf("ip addr replace %s dev %s%s", match[1], dev, option))
		}
	case "neigh":
		for line := range strings.Lines(ns.MustRun(t, "ip", "neigh", "show", "dev", dev)) {
			if f := strings.Fields(line); strings.Contains(line, "extern_learn") {
				out = append(out, fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud reachable extern_learn", f[0], f[2], dev))
			}
		}
	default:
		for line := range strings.Lines(ns.MustRun(t, "sh", "-c", "ip "+kind+" show dev "+dev)) {
			line = strings.ReplaceAll(strings.TrimSuffix(strings.TrimSpace(line), " pref medium"), " linkdown", "")
			command := fmt.Sprintf("ip %s replace %s dev %s", kind, line, dev)
			switch {
			case line == "":
			case strings.Contains(line, "via fe80"), strings.Contains(line, "default"):
				late = append([]string{command + " onlink"}, late...)
			default:
				out = append(out, command)
			}
		}
	}
	return append(out, late...)
}

var (
	chainLine = regexp.MustCompile(`^chain (\S+) \{`)
	setLine   = regexp.MustCompile(`^\t(?:map|set) (\S+) \{`)
)

// nftTable returns zipline's table as text.
func (top *topology) nftTable(t *testing.T) string {
	t.Helper()
	return top.Node.MustRun(t, "nft", "list", "table", "inet", "zipline")
}

// nftRestore replaces zipline's table by a text of it.
func (top *topology) nftRestore(t *testing.T, table string) {
	t.Helper()
	top.Node.MustRunInput(t, "table inet zipline\ndelete table inet zipline\n"+table+"\n", "nft", "-f", "-")
}

// nftRule is a rule of zipline's table.
type nftRule struct{ chain, handle, text string }

// nftRules lists the rules of zipline's table.
func (top *topology) nftRules(t *testing.T) []nftRule {
	t.Helper()
	var rules []nftRule
	chain := ""
	for line := range strings.Lines(top.Node.MustRun(t, "nft", "-a", "-s", "list", "table", "inet", "zipline")) {
		line = strings.TrimSpace(line)
		if match := chainLine.FindStringSubmatch(line); match != nil {
			chain = match[1]
			continue
		}
		if text, handle, ok := strings.Cut(line, " # handle "); ok && chain != "" {
			rules = append(rules, nftRule{chain, handle, text})
		}
	}
	return rules
}

// deleteElement deletes the element of an address from the first map or set
// that has one and returns how to restore the table.
func (top *topology) deleteElement(t *testing.T, addr netip.Addr) func() {
	t.Helper()
	table := top.nftTable(t)
	name := ""
	for line := range strings.Lines(table) {
		if match := setLine.FindStringSubmatch(line); match != nil {
			name = match[1]
		}
		if regexp.MustCompile(`[ \t]` + regexp.QuoteMeta(addr.String()) + ` `).MatchString(line) {
			top.Node.MustRun(t, "nft", "delete", "element", "inet", "zipline", name, "{", addr.String(), "}")
			return func() { top.nftRestore(t, table) }
		}
	}
	t.Fatalf("no element of %s in\n%s", addr, table)
	return nil
}

// TestCheckNeedsWhatTheSpecificationSays are the inputs of CHECK itself.
func TestCheckNeedsWhatTheSpecificationSays(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	p := top.attach(network{})
	wantError(t, p.Invoke(t, "CHECK", p.config), 7, "prevResult", "prevResult")
	old := setKeys(p.config, map[string]any{"cniVersion": "0.3.1"})
	wantError(t, p.Invoke(t, "CHECK", withPrevResult(t, old, p.result)), 1, "", "")
	inv := p.Invocation("CHECK", withPrevResult(t, p.config, p.result))
	inv.Netns = "/run/netns/none"
	wantError(t, top.Node.Invoke(t, inv), 8, "CNI_NETNS", "")
	if _, err := os.Stat(p.Path); err == nil {
		t.Errorf("%s shows outside of the node", p.Path)
	}
	reply := p.Invoke(t, "CHECK", withPrevResult(t, p.config, p.result))
	if reply.Err() != nil || reply.Stdout != "" {
		t.Errorf("CHECK of a good attachment: %v, stdout %q", reply.Err(), reply.Stdout)
	}
}
