// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var routingChecks = []Check{
	{"ipv4-forwarding", topicRouting, "net.ipv4.ip_forward, and the switch of each uplink", "off where a network needs it", checkForwarding4},
	{"ipv6-forwarding", topicRouting, "net.ipv6.conf.all.forwarding", "off where a network needs it", checkForwarding6},
	{"router-advertisements", topicRouting, "uplinks whose IPv6 default route the kernel learned by itself", "forwarding makes the kernel drop it, unless accept_ra is 2", checkAdvertisements},
	{"rp-filter", topicRouting, "rp_filter of the uplinks", "strict with several uplinks: answers that come by another one are dropped", checkReversePath},
	{"policy-rules", topicRouting, "ip rules that others made", "any: what leaves by an uplink stays in the stack (info)", checkRules},
	{"multipath", topicRouting, "fib_multipath_hash_policy", "other than 0: what leaves by an uplink stays in the stack (info)", checkMultipath},
	{"ipsec", topicRouting, "IPsec policies", "any: what leaves by an uplink stays in the stack (info)", checkIPsec},
	{"neighbour-table", topicRouting, "gc_thresh3 of the ARP and ND tables beside the number of endpoints", "too small: containers do not find their gateway", checkNeighbours},
}

// gateways returns the configured networks that switch forwarding of a family on.
func (n *node) gateways(family int) (names []string) {
	configs, _ := n.configs()
	for _, c := range configs {
		if c.Gateway && c.hasFamily(family) {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func checkForwarding4(n *node) []Finding {
	const key = "net/ipv4/ip_forward"
	if !n.sysctlIs(key, "1") {
		return n.notForwarding(key, unix.AF_INET)
	}
	uplinks, err := n.uplinks()
	if err != nil {
		return skipped(err)
	}
	var findings []Finding
	for _, u := range uplinks {
		name := "net/ipv4/conf/" + u.name() + "/forwarding"
		if n.sysctlIs(name, "0") {
			findings = append(findings, Finding{
				Level: Warning, Subject: u.name(), Found: "ip_forward is 1, and this uplink's own switch is 0",
				Means: "what comes in by it for a container is dropped", Mend: setSysctl(name, "1"),
			})
		}
	}
	return orOK(findings, "on, at every uplink")
}

func checkForwarding6(n *node) []Finding {
	const key = "net/ipv6/conf/all/forwarding"
	if _, there := n.sysctl(key); !there {
		return ok("the kernel has no IPv6")
	}
	if !n.sysctlIs(key, "1") {
		return n.notForwarding(key, unix.AF_INET6)
	}
	return ok("on")
}

// notForwarding is what a node means that does not forward.
func (n *node) notForwarding(key string, family int) []Finding {
	gateways := n.gateways(family)
	switch {
	case len(gateways) > 0 && n.count() > 0:
		return []Finding{{
			Level: Problem, Found: fmt.Sprintf("off, and there are endpoints; %s (isGateway) had it switched on", list(gateways)),
			Means: "containers reach nothing beyond this node, and networks do not reach each other", Mend: setSysctl(key, "1"),
		}}
	case len(gateways) > 0:
		return ok("off; the first ADD of %s switches it on (isGateway)", list(gateways))
	}
	configs, _ := n.configs()
	switch {
	case len(configs) == 0 && n.count() == 0:
		return ok("off; the first ADD of a network with isGateway switches it on")
	case len(configs) == 0:
		return []Finding{{
			Level: Warning, Found: "off, and there are endpoints of a network that is not in " + n.configDir(),
			Means: "containers reach their own subnet on this node at most", Mend: setSysctl(key, "1"),
		}}
	}
	return []Finding{{
		Level: Info, Found: "off, and no configured network of this family has isGateway",
		Means:  "containers reach their own subnet on this node at most; ADD leaves the switch alone",
		Advice: `set "isGateway": true in the network's configuration`,
	}}
}

// checkAdvertisements is about rt6_purge_dflt_routers and ipv6_accept_ra: a node
// that forwards is a router, and a router does not listen to routers.
func checkAdvertisements(n *node) []Finding {
	uplinks, err := n.uplinks()
	if err != nil {
		return skipped(err)
	}
	gateways := n.gateways(unix.AF_INET6)
	forwards := n.sysctlIs("net/ipv6/conf/all/forwarding", "1")
	var findings []Finding
	for _, u := range uplinks {
		name := "net/ipv6/conf/" + u.name() + "/accept_ra"
		if !u.advertised || !n.sysctlIs(name, "1") {
			continue
		}
		f := Finding{
			Level: Warning, Subject: u.name(), Found: "the IPv6 default route comes from router advertisements, and accept_ra is 1",
			Means: "the kernel forwards, so it does not renew this route: the node loses it", Mend: setSysctl(name, "2"),
		}
		switch {
		case !forwards && len(gateways) > 0:
			f.Means = fmt.Sprintf("the first ADD of %s switches forwarding on, and the kernel drops this route", list(gateways))
		case !forwards:
			f.Level, f.Means = Info, "a network with IPv6 and isGateway would switch forwarding on, and the kernel would drop this route"
		}
		findings = append(findings, f)
	}
	return orOK(findings, "no uplink depends on them")
}

// checkReversePath takes the larger of the two switches, as the kernel does
// (IN_DEV_RPFILTER). 1 is strict, 2 is loose.
func checkReversePath(n *node) []Finding {
	uplinks, err := n.uplinks()
	if err != nil {
		return skipped(err)
	}
	all, _ := n.sysctl("net/ipv4/conf/all/rp_filter")
	var strict []string
	four := 0
	for _, u := range uplinks {
		own, _ := n.sysctl("net/ipv4/conf/" + u.name() + "/rp_filter")
		if max(all, own) == "1" {
			strict = append(strict, u.name())
		}
		if u.ipv4 || u.named {
			four++
		}
	}
	switch {
	case len(strict) == 0:
		return ok("not strict")
	case four < 2:
		return ok("strict, which is no matter with one uplink")
	}
	var findings []Finding
	for _, name := range strict {
		key := "net/ipv4/conf/" + name + "/rp_filter"
		findings = append(findings, Finding{
			Level: Warning, Subject: name, Found: fmt.Sprintf("rp_filter is strict (all: %s), one of %d uplinks", all, four),
			Means: "what comes in by this uplink is dropped where its answer would leave by another", Mend: setSysctl(key, "2"),
		})
	}
	return findings
}

// staysInStack is what these three have in common: the programs cannot follow the
// kernel's decision (docs/architecture.md, "What stays in the stack, always").
const staysInStack = "what leaves by an uplink stays in the stack; traffic between containers of this node is carried"

func checkRules(n *node) []Finding {
	var findings []Finding
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			return skipped(fmt.Errorf("list rules: %w", err))
		}
		var foreign []string
		for i := range rules {
			if !isDefaultRule(&rules[i]) {
				foreign = append(foreign, strconv.Itoa(rules[i].Priority))
			}
		}
		if len(foreign) > 0 {
			command, name := "ip rule", "IPv4"
			if family == unix.AF_INET6 {
				command, name = "ip -6 rule", "IPv6"
			}
			findings = append(findings, Finding{
				Level: Info, Subject: name, Found: fmt.Sprintf("%d rules besides the kernel's own (priority %s)", len(foreign), list(foreign)),
				Means: staysInStack, Mend: command + " show   # routes of the main table need no rule",
			})
		}
	}
	return orOK(findings, "only the kernel's own")
}

// isDefaultRule says whether a rule is one of those that the kernel makes
// (fib_default_rules_init, fib6_rules_net_init): all packets, a table each.
func isDefaultRule(r *netlink.Rule) bool {
	plain := r.Src == nil && r.Dst == nil && r.Mark == 0 && r.IifName == "" && r.OifName == "" && !r.Invert
	return plain && (r.Priority == 0 && r.Table == unix.RT_TABLE_LOCAL ||
		r.Priority == 32766 && r.Table == unix.RT_TABLE_MAIN || r.Priority == 32767 && r.Table == unix.RT_TABLE_DEFAULT)
}

func checkMultipath(n *node) []Finding {
	var findings []Finding
	for _, family := range []string{"ipv4", "ipv6"} {
		key := "net/" + family + "/fib_multipath_hash_policy"
		if value, there := n.sysctl(key); there && value != "0" {
			findings = append(findings, Finding{
				Level: Info, Subject: family, Found: "fib_multipath_hash_policy is " + value, Means: staysInStack,
				Mend: setSysctl(key, "0"),
			})
		}
	}
	return orOK(findings, "0")
}

func checkIPsec(*node) []Finding {
	policies, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
	if err != nil {
		if strings.Contains(err.Error(), "protocol not supported") {
			return ok("the kernel has no IPsec")
		}
		return skipped(fmt.Errorf("list IPsec policies: %w", err))
	}
	count := 0
	for _, p := range policies {
		if p.Dir <= netlink.XFRM_DIR_FWD { // the others are of single sockets
			count++
		}
	}
	if count > 0 {
		return []Finding{{Level: Info, Found: fmt.Sprintf("%d policies", count), Means: staysInStack, Mend: "ip xfrm policy"}}
	}
	return ok("none")
}

// checkNeighbours reads a limit that the node's first namespace alone shows.
func checkNeighbours(n *node) []Finding {
	var findings []Finding
	for _, family := range []string{"ipv4", "ipv6"} {
		key := "net/" + family + "/neigh/default/gc_thresh3"
		text, _ := n.sysctl(key)
		limit, err := strconv.Atoi(text)
		if err == nil && n.count()*10 > limit*8 {
			findings = append(findings, Finding{
				Level: Warning, Subject: family, Found: fmt.Sprintf("gc_thresh3 is %d, and there are %d endpoints", limit, n.count()),
				Means: "each container that talks needs an entry of this table, whose limit is one for the machine", Mend: setSysctl(key, strconv.Itoa(limit*8)),
			})
		}
	}
	return orOK(findings, "large enough for %d endpoints", n.count())
}
