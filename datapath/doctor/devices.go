// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/internal/nlink"
)

var deviceChecks = []Check{
	{"uplinks", topicDevices, "the devices by which the node reaches others, and whether their flows can be carried", "none, or named and not there, or not Ethernet (info)", checkUplinks},
	{"mtu", topicDevices, "MTU of endpoints and configurations beside that of the uplinks", "larger: packets are fragmented, or lost where ICMP errors are", checkMTU},
	{"big-tcp", topicDevices, "the largest packets that the uplinks are set to take", "64 KiB: bigTCP auto leaves the veths at that too (info)", checkBigTCP},
	{"tc-programs", topicDevices, "TCX programs and tc filters of others on uplinks and host veths", "they do not see what is carried, or hide packets from zipline", checkTC},
	{"shaping", topicDevices, "queueing disciplines on host veths", "a limit there does not hold what eBPF carries", checkShaping},
	{"old-bridge", topicDevices, "a bridge with an address of a network's subnet", "containers of both plugins do not reach each other", checkOldBridge},
}

// uplink is a device by which the node reaches others.
type uplink struct {
	netlink.Link
	// ipv4 and ipv6 say that it has a default route of the family.
	ipv4, ipv6 bool
	// named says that a configuration names it.
	named bool
	// advertised says that its IPv6 default route came by the kernel from a router.
	advertised bool
}

func (u *uplink) name() string { return u.Attrs().Name }

// ours says whether a link is the host veth of an endpoint.
func ours(l netlink.Link) bool {
	_, yes := datapath.AttachedBy(l)
	return yes
}

// ethernet says whether the programs understand what a device carries.
func (u *uplink) ethernet() bool { return u.Attrs().EncapType == "ether" }

// readUplinks returns the devices of the default routes and those that a
// configuration names, by name.
func (n *node) readUplinks() ([]uplink, error) {
	found := map[int]*uplink{}
	at := func(index int) *uplink {
		if found[index] == nil {
			found[index] = &uplink{}
		}
		return found[index]
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		err := nlink.EachRoute(nlink.RouteFilter{Family: family}, func(r nlink.Route) bool {
			if r.Dst.Bits() != 0 { // IPv4 default routes come first, IPv6 ones last
				return family == unix.AF_INET6 || r.Dst.Addr().IsUnspecified()
			}
			for _, index := range append(r.NextHops, r.Device) {
				if index == 0 || r.Type != unix.RTN_UNICAST {
					continue
				}
				u := at(index)
				u.ipv4 = u.ipv4 || family == unix.AF_INET
				u.ipv6 = u.ipv6 || family == unix.AF_INET6
				u.advertised = u.advertised || family == unix.AF_INET6 && r.Protocol == unix.RTPROT_RA
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	links, err := n.links()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	names := n.namedUplinks()
	var list []uplink
	for _, link := range links {
		attrs := link.Attrs()
		if !ours(link) && slices.ContainsFunc(names, func(glob string) bool { return matches(glob, attrs.Name) }) {
			at(attrs.Index).named = true
		}
		if u := found[attrs.Index]; u != nil && !ours(link) {
			u.Link = link
			list = append(list, *u)
		}
	}
	slices.SortFunc(list, func(a, b uplink) int { return strings.Compare(a.name(), b.name()) })
	return list, nil
}

// namedUplinks returns the names and globs of all configurations.
func (n *node) namedUplinks() (names []string) {
	configs, _ := n.configs()
	for _, c := range configs {
		names = append(names, c.Uplinks...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func matches(glob, name string) bool {
	yes, err := path.Match(glob, name)
	return yes && err == nil
}

func checkUplinks(n *node) []Finding {
	uplinks, err := n.uplinks()
	if err != nil {
		return skipped(err)
	}
	var findings []Finding
	var good []string
	for _, u := range uplinks {
		if u.ethernet() {
			good = append(good, u.name())
			continue
		}
		findings = append(findings, Finding{
			Level: Info, Subject: u.name(), Found: "carries no Ethernet frames (" + u.Attrs().EncapType + ")", Means: "what comes and goes by it stays in the stack",
		})
	}
	for _, glob := range n.namedUplinks() {
		if !slices.ContainsFunc(uplinks, func(u uplink) bool { return matches(glob, u.name()) }) {
			findings = append(findings, Finding{
				Level: Info, Subject: glob, Found: "is named as an uplink, and no device matches",
				Means: "the first ADD or CHECK after it has come attaches to it",
			})
		}
	}
	if len(good) == 0 {
		return append(findings, Finding{
			Level: Info, Found: "there is no default route by an Ethernet device", Means: "what comes from outside and goes there stays in the stack",
			Advice: `set "uplinks": ["NAME"] in the network's configuration`,
		})
	}
	return append(findings, ok("%s", list(good))...)
}

// checkMTU tells of the smallest uplink only: packets may leave by any.
func checkMTU(n *node) []Finding {
	uplinks, err := n.uplinks()
	if err != nil {
		return skipped(err)
	}
	if len(uplinks) == 0 {
		return ok("no uplink to compare with")
	}
	least := slices.MinFunc(uplinks, func(a, b uplink) int { return a.Attrs().MTU - b.Attrs().MTU })
	limit := least.Attrs().MTU
	var findings []Finding
	endpoints, err := n.endpoints()
	if err != nil {
		return skipped(err)
	}
	var large []string
	for _, e := range endpoints {
		if e.MTU > limit {
			large = append(large, e.HostDevice)
		}
	}
	means := fmt.Sprintf("packets above %d bytes to the outside are fragmented by the node, or refused with an ICMP error that a firewall may lose: connections hang", limit)
	if len(large) > 0 {
		findings = append(findings, Finding{
			Level: Warning, Subject: "endpoints", Found: fmt.Sprintf("%s: MTU above the %d of uplink %s", list(large), limit, least.name()),
			Means: means, Advice: "start these containers again; ADD takes the uplink's MTU where the configuration has no mtu",
		})
	}
	configs, _ := n.configs()
	for _, c := range configs {
		if c.MTU > limit {
			findings = append(findings, Finding{
				Level: Warning, Subject: c.Name, Found: fmt.Sprintf("mtu %d in %s, above the %d of uplink %s", c.MTU, c.file, limit, least.name()),
				Means: means, Advice: `remove "mtu" from the configuration: ADD then takes the uplink's`,
			})
		}
	}
	return orOK(findings, "the least of the uplinks is %d, of %s", limit, least.name())
}

// Sizes of packets before segmentation (GSO_LEGACY_MAX_SIZE, and what zipline uses).
const (
	legacyPacket = 64 << 10
	bigPacket    = 192 << 10
)

func checkBigTCP(n *node) []Finding {
	uplinks, err := n.uplinks()
	if err != nil {
		return skipped(err)
	}
	var findings []Finding
	for _, u := range uplinks {
		attrs := u.Attrs()
		f := Finding{Level: Info, Subject: u.name()}
		switch {
		case attrs.GSOIPv4MaxSize == 0:
			f.Found, f.Means = "this kernel has no BIG TCP for IPv4 (Linux 6.3)", "bigTCP on is refused, auto is off"
		case attrs.GSOIPv4MaxSize > legacyPacket:
			f.Level, f.Found = OK, fmt.Sprintf("takes IPv4 packets up to %d KiB", attrs.GSOIPv4MaxSize>>10)
		case attrs.TSOMaxSize >= bigPacket:
			f.Found = fmt.Sprintf("is set to take %d KiB, and could take %d KiB", attrs.GSOIPv4MaxSize>>10, attrs.TSOMaxSize>>10)
			f.Means = "bigTCP auto leaves the veths at 64 KiB"
			f.Mend = fmt.Sprintf("ip link set %s gso_ipv4_max_size %d gro_ipv4_max_size %[2]d   # iproute2 6.3", quote(u.name()), bigPacket)
		default:
			f.Found, f.Means = fmt.Sprintf("takes no more than %d KiB", attrs.TSOMaxSize>>10), "bigTCP auto leaves the veths at 64 KiB"
		}
		findings = append(findings, f)
	}
	return orOK(findings, "no uplink to ask")
}

// plainQdiscs neither delay nor drop by a limit of their own.
var plainQdiscs = []string{"noqueue", "fq_codel", "fq", "pfifo_fast", "pfifo", "mq", "clsact", "ingress", "noop", "cake", "sfq"}

// checkShaping looks at what the plugin bandwidth and others put on a host veth.
func checkShaping(n *node) []Finding {
	links, err := n.links()
	if err != nil {
		return skipped(err)
	}
	names := map[int]string{}
	for _, l := range links {
		if ours(l) {
			names[l.Attrs().Index] = l.Attrs().Name
		}
	}
	qdiscs, err := netlink.QdiscList(nil)
	if err != nil {
		return skipped(fmt.Errorf("list queueing disciplines: %w", err))
	}
	var limited []string
	for _, q := range qdiscs {
		if name := names[q.Attrs().LinkIndex]; name != "" && !slices.Contains(plainQdiscs, q.Type()) {
			limited = append(limited, fmt.Sprintf("%s (%s)", name, q.Type()))
		}
	}
	if len(limited) > 0 {
		slices.Sort(limited)
		return []Finding{{
			Level: Warning, Found: list(slices.Compact(limited)), Means: "the limit does not hold what eBPF delivers to the container",
			Advice: `set "forwarding": "kernel" in the configuration of networks with limits, and start the containers again`,
		}}
	}
	return ok("none but the usual")
}

func checkOldBridge(n *node) []Finding {
	links, err := n.links()
	if err != nil {
		return skipped(err)
	}
	configs, _ := n.configs()
	var findings []Finding
	for _, l := range links {
		if l.Type() != "bridge" {
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return skipped(fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err))
		}
		for _, c := range configs {
			if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return c.contains(a) }) {
				continue
			}
			findings = append(findings, Finding{
				Level: Warning, Subject: l.Attrs().Name, Found: "this bridge has an address of a subnet of network " + c.Name,
				Means: "containers behind it and those of zipline do not reach each other; its route hides what zipline says of free addresses",
				Mend:  fmt.Sprintf("bridge link show master %s   # when nothing is left there: ip link del %[1]s", quote(l.Attrs().Name)),
			})
			break
		}
	}
	return orOK(findings, "none")
}

func (c *configured) contains(a netlink.Addr) bool {
	addr, good := netip.AddrFromSlice(a.IP)
	return good && slices.ContainsFunc(c.Subnets, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
}
