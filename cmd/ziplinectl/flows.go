// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/datapath/conntrack"
	"github.com/zipline-cni/zipline/datapath/flow"
)

type flowFilter struct {
	endpoints           endpointFilter
	address, protocol   string
	port                uint16
	carried, notCarried bool

	prefix  netip.Prefix
	number  uint8
	devices map[string]bool // of endpoints; nil: all
}

func (a *app) flowsCommand() *cobra.Command {
	var filter flowFilter
	var interval time.Duration
	c := describes([]flowJSON{}, &cobra.Command{
		Use:   "flows",
		Short: "List the connections of the endpoints, and why eBPF carries them or not",
		Long: `flows lists the connections that conntrack has of the endpoints, with their
translation, and says of each direction whether its next packet would be carried
past the stack by eBPF and, if not, why. It asks copies of the programs about a
packet of the flow, so the answer is theirs; the flow itself is left alone.

"flow checks in with the stack" is what is said of a direction that sent nothing
for two seconds: its next packet goes through the stack, those that follow are
carried. A direction under traffic is in that state for an instant every two
seconds, so it is asked about again for a tenth of a second. A connection that has
a timeout of somebody's (ct timeout) is in it for ever: "timeout that conntrack did
not choose" is what to_device says of its packets (ziplinectl trace).

Two containers that talk directly, past conntrack, have no entry here. What
conntrack counts are packets that went through the stack.`,
		Example: `  ziplinectl flows --not-carried
  ziplinectl flows --endpoint 7c1f --protocol tcp --watch=1s
  ziplinectl flows --address 10.88.0.0/24 --port 443 -o json`,
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(c *cobra.Command, _ []string) error {
			if err := filter.check(); err != nil {
				return usageError{err}
			}
			if !c.Flags().Changed("watch") {
				return a.printFlows(&filter)
			}
			if interval < 100*time.Millisecond {
				return usageError{fmt.Errorf("watch %s: want 100ms or more", interval)}
			}
			return a.repeat(c.Context(), interval, func() error { return a.printFlows(&filter) })
		},
	})
	f := c.Flags()
	filter.endpoints.bindNames(c, "of an endpoint")
	f.StringVar(&filter.address, "address", "", "with this `address` or prefix at either end, translated or not")
	f.Uint16Var(&filter.port, "port", 0, "with this `port` at either end, translated or not")
	f.StringVar(&filter.protocol, "protocol", "", "of this `protocol`: tcp, udp, icmp, icmpv6 or a number")
	f.BoolVar(&filter.carried, "carried", false, "that eBPF carries in a direction at least")
	f.BoolVar(&filter.notCarried, "not-carried", false, "that eBPF does not carry")
	f.DurationVar(&interval, "watch", 2*time.Second, "print the list again after each `interval`, until interrupted")
	f.Lookup("watch").NoOptDefVal = "2s"
	c.MarkFlagsMutuallyExclusive("carried", "not-carried")
	return c
}

// repeat calls f at once and after each interval until ctx ends. On a terminal
// each call writes over what the last one wrote.
func (a *app) repeat(ctx context.Context, interval time.Duration, f func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if a.terminal {
			_, _ = fmt.Fprint(a.out, "\x1b[H\x1b[2J") // an error comes again with what follows
		}
		if err := f(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// check reads what the flags say.
func (f *flowFilter) check() (err error) {
	if f.address != "" {
		if f.prefix, err = parsePrefix(f.address); err != nil {
			return err
		}
	}
	if f.protocol != "" {
		f.number, err = parseProtocol(f.protocol)
	}
	return err
}

// find looks for the endpoints that are there now.
func (f *flowFilter) find() error {
	if !f.endpoints.given() {
		return nil
	}
	all, err := datapath.Endpoints()
	if err != nil {
		return err
	}
	if all, err = f.endpoints.choose(all); err != nil {
		return err
	}
	f.devices = map[string]bool{}
	for _, e := range all {
		f.devices[e.HostDevice] = true
	}
	return nil
}

// keep is about everything but the paths.
func (f *flowFilter) keep(c *flow.Flow) bool {
	ends := []netip.AddrPort{c.Original.Source, c.Original.Destination, c.Reply.Source, c.Reply.Destination}
	has := func(fits func(netip.AddrPort) bool) bool { return slices.ContainsFunc(ends, fits) }
	if f.prefix.IsValid() && !has(func(e netip.AddrPort) bool { return f.prefix.Contains(e.Addr()) }) {
		return false
	}
	if f.port != 0 && !has(func(e netip.AddrPort) bool { return e.Port() == f.port }) {
		return false
	}
	if f.protocol != "" && c.Protocol != f.number {
		return false
	}
	return f.devices == nil || slices.ContainsFunc(c.Members, func(m flow.Member) bool { return f.devices[m.HostDevice] })
}

// fits is about the paths.
func (f *flowFilter) fits(c *flow.Flow) bool {
	return !f.carried && !f.notCarried || f.carried == c.Carried()
}

func (a *app) printFlows(filter *flowFilter) error {
	if err := filter.find(); err != nil {
		return err
	}
	all, err := flow.List(filter.keep)
	if err != nil {
		return err
	}
	flows := []flowJSON{}
	for _, f := range all {
		if filter.fits(&f) {
			flows = append(flows, newFlowJSON(&f))
		}
	}
	return a.print(flows, func(g *grid) { flowRows(g, flows) })
}

func flowRows(g *grid, flows []flowJSON) {
	g.heading("PROTO", "STATE", "SOURCE", "DESTINATION", "TRANSLATION", "ENDPOINT", "LEFT", "CARRIED", "WHY NOT")
	for i := range flows {
		f := &flows[i]
		g.row(f.Protocol, f.State, f.Original.Source, f.Reply.Source, strings.Join(f.Translation, ", "),
			f.names(), fmt.Sprintf("%ds", f.TimeoutSeconds), f.carriedCell(g), f.why())
	}
}

// The values of a flow's "carried".
const (
	carriedBoth     = "both"
	carriedOriginal = "original"
	carriedReply    = "reply"
	carriedNone     = "none"
)

type flowJSON struct {
	ID             uint32             `json:"id" doc:"conntrack's number of the entry"`
	Protocol       string             `json:"protocol" doc:"tcp, udp, icmp, …, or the number of another one"`
	State          string             `json:"state" doc:"of TCP, as conntrack(8) has it; empty for others"`
	Status         []string           `json:"status" doc:"bits of the entry: seen-reply, assured, confirmed, snat, dnat, dying, fixed-timeout, helper, offload, …"`
	Mark           uint32             `json:"mark" doc:"conntrack mark"`
	Zone           uint16             `json:"zone" doc:"conntrack zone; eBPF knows only zone 0"`
	Helper         string             `json:"helper" doc:"conntrack helper, empty for none"`
	TimeoutSeconds int                `json:"timeoutSeconds" doc:"until the entry ends if no packet comes"`
	Accounted      bool               `json:"accounted" doc:"whether packets and bytes are known (net.netfilter.nf_conntrack_acct)"`
	Translation    []string           `json:"translation" doc:"'SNAT to' and 'DNAT from' with address and port"`
	Endpoints      []flowEndpointJSON `json:"endpoints" doc:"the endpoint that opened the flow and the one where it ends: at least one"`
	Carried        string             `json:"carried" doc:"directions that eBPF carries past the stack: both, original, reply, none"`
	Original       flowDirectionJSON  `json:"original" doc:"the direction that opened the flow"`
	Reply          flowDirectionJSON  `json:"reply" doc:"the direction of the answers"`
}

type flowEndpointJSON struct {
	Address     string `json:"address" doc:"the endpoint's address"`
	Network     string `json:"network" doc:"name of the network"`
	ContainerID string `json:"containerId" doc:"the runtime's id of the container"`
	IfName      string `json:"ifName" doc:"the device in the container"`
	Device      string `json:"device" doc:"the device on the node"`
}

type flowDirectionJSON struct {
	Source      string `json:"source" doc:"source address and port of packets that arrive"`
	Destination string `json:"destination" doc:"their destination address and port"`
	Packets     uint64 `json:"packets" doc:"packets that went through the stack, if accounted"`
	Bytes       uint64 `json:"bytes" doc:"their length"`
	Device      string `json:"device" doc:"the device that they come in by; empty for the node's own"`
	Program     string `json:"program" doc:"the program that decides there; empty for none"`
	Carried     bool   `json:"carried" doc:"whether the next packet passes the stack by"`
	Verdict     string `json:"verdict" doc:"what the program does with it: redirect, next, drop"`
	Reason      string `json:"reason" doc:"the program's reason, or why there is no program"`
	Detail      string `json:"detail" doc:"why a direction checks in for ever; empty where nothing is known"`
}

func newFlowJSON(f *flow.Flow) flowJSON {
	v := flowJSON{
		ID: f.ID, Protocol: cmp.Or(protocolName(f.Protocol), number(uint32(f.Protocol))), State: f.State, Status: f.Status.Names(), Mark: f.Mark,
		Zone: f.Zone, Helper: f.Helper, TimeoutSeconds: int(f.Timeout / time.Second), Accounted: f.Accounted,
		Translation: translation(f), Endpoints: []flowEndpointJSON{},
		Original: newFlowDirection(f.Original, f.SeenOriginal, f.OriginalPath),
		Reply:    newFlowDirection(f.Reply, f.SeenReply, f.ReplyPath),
		Carried:  carriedNone,
	}
	for _, m := range f.Members {
		v.Endpoints = append(v.Endpoints, flowEndpointJSON{m.Address.String(), m.Network, m.ContainerID, m.IfName, m.HostDevice})
	}
	switch {
	case v.Original.Carried && v.Reply.Carried:
		v.Carried = carriedBoth
	case v.Original.Carried:
		v.Carried = carriedOriginal
	case v.Reply.Carried:
		v.Carried = carriedReply
	}
	return v
}

func newFlowDirection(t conntrack.Tuple, seen conntrack.Count, p flow.Path) flowDirectionJSON {
	v := flowDirectionJSON{
		Source: end(t.Source), Destination: end(t.Destination), Packets: seen.Packets, Bytes: seen.Bytes,
		Device: p.Device, Carried: p.Carried, Verdict: p.Verdict.String(), Reason: p.Why, Detail: p.Detail,
	}
	if p.Reason != 0 {
		v.Program = p.Hook.String()
	}
	return v
}

// end leaves out a port that there is not.
func end(e netip.AddrPort) string {
	if e.Port() == 0 {
		return e.Addr().String()
	}
	return e.String()
}

// translation says in words what netfilter makes of the flow.
func translation(f *flow.Flow) []string {
	words := []string{}
	if to, ok := f.SNAT(); ok {
		words = append(words, "SNAT to "+end(to))
	}
	if from, ok := f.DNAT(); ok {
		words = append(words, "DNAT from "+end(from))
	}
	return words
}

// names has the endpoints as "network/container", ids cut as people do.
func (f *flowJSON) names() string {
	var names []string
	for _, e := range f.Endpoints {
		names = append(names, cmp.Or(e.Network, "?")+"/"+cmp.Or(short(e.ContainerID), e.Device))
	}
	return strings.Join(names, ", ")
}

func (f *flowJSON) carriedCell(g *grid) string {
	switch f.Carried {
	case carriedBoth:
		return g.good(f.Carried)
	case carriedNone:
		return g.dim(f.Carried)
	}
	return f.Carried
}

// why says of the directions that are not carried why not, once where it is the same.
func (f *flowJSON) why() string {
	original, reply := f.Original.why(), f.Reply.why()
	switch {
	case original == reply:
		return original
	case original == "":
		return "reply: " + reply
	case reply == "":
		return "original: " + original
	}
	return fmt.Sprintf("original: %s; reply: %s", original, reply)
}

func (d *flowDirectionJSON) why() string {
	switch {
	case d.Carried:
		return ""
	case d.Detail != "":
		return d.Reason + ", " + d.Detail
	}
	return d.Reason
}
