// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/datapath/nat"
)

var netfilterChecks = []Check{
	{"veth", topicNetfilter, "a veth pair can be made (in a namespace that ends with the attempt)", "it cannot: every ADD fails", checkVeth},
	{"nftables", topicNetfilter, "the whole ruleset can be made (there too)", "the kernel lacks a part of it: every ADD fails", checkNFTables},
	{"ctnetlink", topicNetfilter, "the netlink interface of conntrack answers", "it does not: a DEL leaves flows behind", checkCTNetlink},
	{"bridge-netfilter", topicNetfilter, "net.bridge.bridge-nf-call-iptables and -ip6tables", "1: forwarding auto is tracked (info)", checkBridgeNetfilter},
	{"conntrack-liberal", topicNetfilter, "nf_conntrack_tcp_be_liberal and _ignore_invalid_rst", "missing, or put back to 0 while flows are carried", checkLiberal},
	{"conntrack-timeouts", topicNetfilter, "timeouts of established flows", "below some seconds: pauses end flows", checkTimeouts},
	{"conntrack-table", topicNetfilter, "flows in the conntrack table, of how many", "above 80 %; above 95 % is a problem: new flows are dropped", checkTable},
	{"forward-policy", topicNetfilter, "base chains that drop what is forwarded by default", "there is one: containers reach others only where it has a rule", checkForwardPolicy},
	{"netdev-chains", topicNetfilter, "nftables chains of family netdev on uplinks and host veths", "any: their rules do not see what eBPF carries", checkNetdev},
}

func checkVeth(n *node) []Finding {
	err := n.kernel()
	if !isOf(err, "veth") && !errors.Is(err, errUnprivileged) {
		err = nil // the device was made, else there were no ruleset to fail
	}
	return wanting(err, "veth pairs can be made", Finding{Level: Problem, Means: "every ADD fails", Mend: "modprobe veth"})
}

func checkNFTables(n *node) []Finding {
	err := n.kernel()
	if isOf(err, "veth") {
		return skipped(err)
	}
	return wanting(err, "the whole ruleset can be made", Finding{
		Level: Problem, Means: "every ADD fails",
		Mend: "modprobe -a nf_tables nft_ct nft_nat nft_masq nft_fib_inet   # or a kernel with them",
	})
}

func isOf(err error, key string) bool {
	var unsupported *datapath.UnsupportedError
	return errors.As(err, &unsupported) && unsupported.Key == key
}

// checkCTNetlink asks for the number of entries, as a DEL does first.
func checkCTNetlink(n *node) []Finding {
	return wanting(n.try(func() error {
		const getStats = 5 // IPCTNL_MSG_CT_GET_STATS
		req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|getStats, 0)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
		req.Flags = unix.NLM_F_REQUEST | unix.NLM_F_ACK
		_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
		if err != nil {
			return fmt.Errorf("ask conntrack by netlink: %w", err)
		}
		return nil
	})(), "conntrack answers by netlink", Finding{
		Level: Problem, Means: "a DEL cannot end the flows of an address, which the next container meets", Mend: "modprobe nf_conntrack_netlink",
	})
}

func checkBridgeNetfilter(n *node) []Finding {
	_, there := n.sysctl("net/bridge/bridge-nf-call-iptables")
	switch {
	case n.wantsNetfilter():
		return []Finding{{
			Level: Info, Found: "bridge-nf-call-iptables or -ip6tables is 1",
			Means:  "forwarding auto is tracked: netfilter admits flows between neighbours too, and they are carried once established",
			Advice: `set "forwarding": "direct" in the network's configuration, if no rule is meant for traffic between containers`,
		}}
	case there:
		return ok("both switches are 0: forwarding auto is direct")
	}
	return ok("br_netfilter is not loaded: forwarding auto is direct")
}

func checkLiberal(n *node) []Finding {
	if _, loaded := n.sysctl("net/netfilter/nf_conntrack_max"); !loaded {
		return ok("nf_conntrack is not loaded yet")
	}
	carried := n.count() > 0 && n.conntrack() == nil && n.anyForwarding(func(f datapath.Forwarding) bool { return f != datapath.ForwardingKernel })
	var findings []Finding
	for _, name := range []string{"net/netfilter/nf_conntrack_tcp_be_liberal", "net/netfilter/nf_conntrack_tcp_ignore_invalid_rst"} {
		short := strings.TrimPrefix(name, "net/netfilter/")
		switch value, there := n.sysctl(name); {
		case !there:
			findings = append(findings, Finding{
				Level: Warning, Subject: short, Found: "this kernel has no such switch",
				Means: "flows are not carried", Advice: "use Linux 6.0 or newer",
			})
		case value == "0" && carried:
			findings = append(findings, Finding{
				Level: Warning, Subject: short, Found: "is 0, and there are endpoints",
				Means: "conntrack calls packets of carried flows invalid: they stall, or rules drop them", Mend: setSysctl(name, "1"),
			})
		}
	}
	return orOK(findings, "set, or set by the first ADD")
}

// anyForwarding says whether a configured network has such a mode. It is so where
// no configuration can be found.
func (n *node) anyForwarding(f func(datapath.Forwarding) bool) bool {
	configs, _ := n.configs()
	return len(configs) == 0 || slices.ContainsFunc(configs, func(c configured) bool { return f(c.Forwarding) })
}

// checkTimeouts has as its limits what a pause of a living connection takes. A
// carried flow itself outlives any timeout: it checks in every two seconds.
func checkTimeouts(n *node) []Finding {
	var findings []Finding
	for _, timeout := range []struct {
		name  string
		least int
		usual string
	}{
		{"nf_conntrack_tcp_timeout_established", 300, "86400"}, {"nf_conntrack_udp_timeout_stream", 10, "120"}, {"nf_conntrack_udp_timeout", 5, "30"},
	} {
		text, _ := n.sysctl("net/netfilter/" + timeout.name)
		seconds, err := strconv.Atoi(text)
		if err == nil && seconds < timeout.least {
			findings = append(findings, Finding{
				Level: Warning, Subject: timeout.name, Found: fmt.Sprintf("is %d s", seconds),
				Means: "a flow that pauses for longer loses its translation: connections hang",
				Mend:  setSysctl("net/netfilter/"+timeout.name, timeout.usual),
			})
		}
	}
	return orOK(findings, "long enough")
}

func checkTable(n *node) []Finding {
	limit, there := n.sysctl("net/netfilter/nf_conntrack_max")
	count, _ := n.sysctl("net/netfilter/nf_conntrack_count")
	most, err := strconv.Atoi(limit)
	used, err2 := strconv.Atoi(count)
	switch {
	case !there:
		return ok("nf_conntrack is not loaded yet")
	case err != nil || err2 != nil:
		return skipped(errors.Join(err, err2))
	case most == 0 || used*100 < most*80:
		return ok("%d flows of %s", used, limit)
	}
	level, means := Warning, "soon new flows are dropped"
	if used*100 >= most*95 {
		level, means = Problem, "new flows are dropped, of containers and of the node"
	}
	return []Finding{{
		Level: level, Found: fmt.Sprintf("%d flows of %d", used, most), Means: means,
		Mend: setSysctl("net/netfilter/nf_conntrack_max", strconv.Itoa(most*4)),
	}}
}

// checkForwardPolicy looks at the policies, and at rules of the chain itself that
// name our devices: what else the rules of others let pass cannot be told from outside.
func checkForwardPolicy(n *node) []Finding {
	var findings []Finding
	err := n.try(func() error {
		conn, err := nftables.New()
		if err != nil {
			return fmt.Errorf("open nftables: %w", err)
		}
		chains, err := conn.ListChains()
		if err != nil {
			return fmt.Errorf("list chains: %w", err)
		}
		for _, c := range chains {
			if !dropsForwarded(c) {
				continue
			}
			rules, err := conn.GetRules(c.Table, c)
			if err != nil {
				return fmt.Errorf("list rules: %w", err)
			}
			if !slices.ContainsFunc(rules, acceptsOurs) {
				findings = append(findings, n.dropping(c))
			}
		}
		return nil
	})()
	if err != nil {
		return skipped(err)
	}
	if names, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && slices.Contains(strings.Fields(string(names)), "filter") {
		findings = append(findings, Finding{
			Level: Info, Subject: "iptables-legacy filter", Found: "there is such a table, whose policies cannot be read here",
			Mend: "iptables-legacy -S FORWARD | head -1",
		})
	}
	return orOK(findings, "no chain drops by default, or it has a rule for zipline's devices")
}

// dropping is the finding about a chain. What iptables made is mended by
// iptables, which does not read tables with rules that it cannot write.
func (n *node) dropping(c *nftables.Chain) Finding {
	family := familyText(c.Table.Family)
	f := Finding{
		Level: Warning, Subject: fmt.Sprintf("%s %s %s", family, c.Table.Name, c.Name),
		Found: "its policy is drop", Means: "what containers send beyond this node, and to other networks, is dropped unless a rule accepts it",
		Mend: fmt.Sprintf("nft insert rule %s %s %s iifgroup { %d, %d } accept; nft insert rule %[1]s %[2]s %[3]s oifgroup { %[4]d, %[5]d } ct state established,related accept; "+
			"nft insert rule %[1]s %[2]s %[3]s oifgroup { %[4]d, %[5]d } ct status dnat accept",
			family, quote(c.Table.Name), quote(c.Name), datapath.Group, datapath.GroupUnchecked),
	}
	if c.Table.Name == "filter" && c.Name == "FORWARD" {
		f.Mend = "iptables -I FORWARD -i zl+ -j ACCEPT; iptables -I FORWARD -o zl+ -m conntrack --ctstate ESTABLISHED,RELATED,DNAT -j ACCEPT"
		if family == "ip6" {
			f.Mend = strings.ReplaceAll(f.Mend, "iptables", "ip6tables")
		}
	}
	if n.allChain("firewall") {
		f.Level, f.Means, f.Mend = Info, "the chained plugin firewall is there to have them accepted", ""
	}
	return f
}

// acceptsOurs says whether a rule accepts what comes from host veths, by their
// group or their names.
func acceptsOurs(r *nftables.Rule) bool {
	ours, accepts, byName := false, false, false
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			ours = ours || e.Key == expr.MetaKeyIIFGROUP
			byName = e.Key == expr.MetaKeyIIFNAME
		case *expr.Cmp:
			ours = ours || byName && strings.HasPrefix(string(e.Data), "zl")
		case *expr.Verdict:
			accepts = e.Kind == expr.VerdictAccept
		}
	}
	return ours && accepts
}

func dropsForwarded(c *nftables.Chain) bool {
	return c.Table.Name != nat.TableName && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
		c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop &&
		slices.Contains([]nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}, c.Table.Family)
}

func familyText(f nftables.TableFamily) string {
	return map[nftables.TableFamily]string{nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}[f]
}
