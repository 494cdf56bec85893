// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader"
)

type statusJSON struct {
	Release   string              `json:"release" doc:"version of ziplinectl"`
	Loaded    bool                `json:"loaded" doc:"whether this node has programs and maps of ours"`
	Tier      string              `json:"tier" doc:"what they can do: conntrack, direct or kernel; where nothing is loaded, what the next ADD could load"`
	Missing   string              `json:"missing" doc:"what the kernel lacks for a better tier; empty for nothing"`
	Hook      string              `json:"hook" doc:"where this kernel has programs attached: tcx, or clsact before Linux 6.6"`
	BPFFS     string              `json:"bpffs" doc:"mount point of the bpffs; empty where none is to be seen, as in ip netns exec"`
	Pins      string              `json:"pins" doc:"directory of this node's pins; empty likewise, and where nothing is loaded"`
	Networks  []string            `json:"networks" doc:"networks with endpoints on this node"`
	Endpoints endpointsStatusJSON `json:"endpoints" doc:"the endpoints in numbers"`
	Uplinks   []uplinkJSON        `json:"uplinks" doc:"devices by which established flows leave past the stack"`
	Ruleset   rulesetJSON         `json:"ruleset" doc:"the nftables table inet zipline"`
	Packets   verdictsJSON        `json:"packets" doc:"what the programs on host devices and uplinks decided since the maps were made; a packet that crosses two counts twice"`
	Drops     []dropJSON          `json:"drops" doc:"the dropped ones by reason, the most packets first; reasons without any are left out"`
	Maps      []mapUseJSON        `json:"maps" doc:"maps that must not fill up, the fullest first"`
	Leftovers int                 `json:"leftovers" doc:"addresses in the endpoints map whose device is gone, of containers that died and whose DEL is still to come; GC removes them where it never comes"`
	Findings  []findingJSON       `json:"findings" doc:"what is not as it should be; the exit code is 3 if there is any"`
}

type endpointsStatusJSON struct {
	Total      int            `json:"total" doc:"number of endpoints"`
	Up         int            `json:"up" doc:"how many of them have a carrier"`
	Forwarding forwardingJSON `json:"forwarding" doc:"how many are carried in which way"`
}

type uplinkJSON struct {
	Device  string `json:"device" doc:"name; empty for a device that is gone"`
	Index   int    `json:"index" doc:"interface index"`
	MTU     int    `json:"mtu" doc:"MTU in bytes"`
	Up      bool   `json:"up" doc:"whether it is switched on"`
	Problem string `json:"problem" doc:"what is wrong with its programs; empty for nothing"`
}

type rulesetJSON struct {
	Present  bool `json:"present" doc:"whether the table exists; the first ADD makes it"`
	Complete bool `json:"complete" doc:"whether chains, sets and rules are those of this version"`
}

type verdictsJSON struct {
	Redirect trafficJSON `json:"redirect" doc:"carried past the stack, or answered in its place (ARP, ND)"`
	Drop     trafficJSON `json:"drop" doc:"not delivered"`
	Next     trafficJSON `json:"next" doc:"left to the stack"`
}

type dropJSON struct {
	Reason      string `json:"reason" doc:"the reason, as in trace --reason"`
	Description string `json:"description" doc:"the same in words"`
	trafficJSON
}

type mapUseJSON struct {
	Name       string  `json:"name" doc:"name of the map"`
	Entries    uint32  `json:"entries" doc:"number of entries"`
	MaxEntries uint32  `json:"maxEntries" doc:"how many there can be"`
	Pressure   float64 `json:"pressure" doc:"entries / maxEntries"`
}

type findingJSON struct {
	Object string `json:"object" doc:"what it is about"`
	Wrong  string `json:"wrong" doc:"what is wrong with it"`
	Mend   string `json:"mend" doc:"how to mend it"`
}

func (a *app) statusCommand() *cobra.Command {
	var cacheDirs []string
	c := describes(statusJSON{}, &cobra.Command{
		Use:   "status",
		Short: "Show this node at a glance, and what is wrong with it",
		Long: `Show this node at a glance. The exit code is 3 if something is not as it should
be; each finding says how to mend it. What an endpoint without programs should be
stands in libcni's cache; one that is not in it, nor another of its network, is
taken for one that the kernel forwards.`,
		Example: `  ziplinectl status
  ziplinectl status -o json | jq .findings`,
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(*cobra.Command, []string) error {
			overview, err := datapath.Survey(datapath.Evidence{Specs: a.cachedSpecs(cacheDirs)})
			if err != nil {
				return err
			}
			v := statusOf(overview)
			if err := a.print(v, func(g *grid) { statusRows(g, v) }); err != nil {
				return err
			}
			if len(v.Findings) > 0 {
				return errFindings
			}
			return nil
		},
	})
	bindCacheDirs(c, &cacheDirs)
	return c
}

func statusOf(o *datapath.Overview) *statusJSON {
	v := &statusJSON{
		Release: release, Loaded: o.Loaded, Tier: string(o.Tier), Missing: oneLine(o.Missing), Hook: "tcx", BPFFS: o.BPFFS, Pins: o.PinDir,
		Networks: []string{}, Uplinks: []uplinkJSON{}, Drops: []dropJSON{}, Maps: []mapUseJSON{}, Findings: []findingJSON{},
		Ruleset: rulesetJSON{Present: o.HaveTable(), Complete: o.Table == nil},
		Packets: verdictsJSON{trafficOf(o.Redirected), trafficOf(o.Dropped), trafficOf(o.Left)}, Leftovers: o.Leftovers,
	}
	if o.TCX != nil {
		v.Hook = "clsact"
	}
	counts := map[datapath.Forwarding]int{}
	for _, n := range o.Networks {
		v.Networks = append(v.Networks, n.Name)
		v.Endpoints.Total += n.Endpoints
		v.Endpoints.Up += n.Up
		for word, count := range n.Forwarding {
			counts[word] += count
		}
	}
	v.Endpoints.Forwarding = forwardingOf(counts)
	for _, u := range o.Uplinks {
		v.Uplinks = append(v.Uplinks, uplinkJSON{u.Name, u.Index, u.MTU, u.Up, errorText(u.Wrong)})
	}
	for reason, t := range o.Drops {
		v.Drops = append(v.Drops, dropJSON{reason.Token(), reason.String(), trafficOf(t)})
	}
	slices.SortFunc(v.Drops, func(a, b dropJSON) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Reason, b.Reason))
	})
	for i := range o.Maps {
		if m := &o.Maps[i]; m.Limits() {
			v.Maps = append(v.Maps, mapUseJSON{m.Name, m.Entries, m.MaxEntries, m.Pressure()})
		}
	}
	slices.SortStableFunc(v.Maps, func(a, b mapUseJSON) int { return cmp.Compare(b.Pressure, a.Pressure) })
	for _, f := range o.Findings {
		v.Findings = append(v.Findings, findingJSON{f.Object, f.Wrong, f.Mend})
	}
	return v
}

// oneLine writes joined errors in one line.
func oneLine(err error) string { return strings.ReplaceAll(errorText(err), "\n", "; ") }

func statusRows(g *grid, v *statusJSON) {
	g.row("tier", v.tierText(g))
	g.row("hook", v.Hook)
	g.row("bpffs", v.bpffsText(g))
	g.row("networks", commas(v.Networks))
	g.row("endpoints", v.Endpoints.text(g))
	for _, u := range v.Uplinks {
		g.row("uplink", u.text(g))
	}
	if len(v.Uplinks) == 0 {
		g.row("uplink", "")
	}
	g.row("ruleset", v.Ruleset.text(g))
	g.row("redirect", v.Packets.Redirect.text())
	g.row("drop", v.Packets.Drop.text())
	for _, d := range v.Drops {
		g.row(d.Reason, d.text()+": "+d.Description)
	}
	g.row("next", v.Packets.Next.text())
	if len(v.Maps) > 0 {
		m := v.Maps[0]
		g.row("fullest map", fmt.Sprintf("%s: %d of %d (%.1f%%)", m.Name, m.Entries, m.MaxEntries, 100*m.Pressure))
	}
	if v.Leftovers > 0 {
		g.row("leftovers", plural(uint64(v.Leftovers), "published address")+" of devices that are gone: DEL is still to come, or GC")
	}
	for _, f := range v.Findings {
		g.row(g.bad("finding"), fmt.Sprintf("%s: %s; to mend: %s", f.Object, f.Wrong, f.Mend))
	}
	if len(v.Findings) == 0 {
		g.row("findings", g.good("none"))
	}
}

func (v *statusJSON) tierText(g *grid) string {
	text := v.Tier
	if !v.Loaded {
		text += ", nothing loaded"
	}
	if v.Tier == string(loader.TierConntrack) {
		return g.good(text)
	}
	if v.Missing != "" {
		text += ": " + v.Missing
	}
	return text
}

func (v *statusJSON) bpffsText(g *grid) string {
	switch {
	case v.Pins != "":
		return v.Pins
	case v.BPFFS == "":
		return g.dim("not visible from here")
	default:
		return v.BPFFS + ", no pins of this node"
	}
}

func (e *endpointsStatusJSON) text(g *grid) string {
	up := fmt.Sprintf("%d up", e.Up)
	if e.Up < e.Total {
		up = g.bad(up)
	}
	return fmt.Sprintf("%d, %s; %d direct, %d tracked, %d kernel", e.Total, up, e.Forwarding.Direct, e.Forwarding.Tracked, e.Forwarding.Kernel)
}

func (u *uplinkJSON) text(g *grid) string {
	if u.Problem != "" {
		return g.bad(fmt.Sprintf("%s (%s)", cmp.Or(u.Device, number(u.Index)), u.Problem))
	}
	state := "up"
	if !u.Up {
		state = g.bad("down")
	}
	return fmt.Sprintf("%s, mtu %d, %s", u.Device, u.MTU, state)
}

func (r rulesetJSON) text(g *grid) string {
	switch {
	case r.Complete:
		return "table inet zipline, complete"
	case r.Present:
		return g.bad("table inet zipline, incomplete or changed")
	default:
		return "no table inet zipline"
	}
}
