// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
	"github.com/zipline-cni/zipline/loader"
)

// flowCase is a kind of flow and what has to be said of it.
type flowCase struct {
	name     string
	from, to *testrig.Namespace // to nil: nobody answers
	listen   netip.Addr         // of the server
	dial     netip.Addr         // where that is not listen
	network  string             // "tcp" or "udp"
	prepare  func(port uint16)  // before the flow begins
	undo     func()
	// translation that is wanted, with PORT for the flow's port.
	translation []string
	// original and reply are the reasons; nothing where no program is asked.
	original, reply         bpf.Reason
	originalDetail          string
	replyWhy                string
	originalHook, replyHook bpf.Hook
	absent                  bool       // conntrack has no entry
	device                  bpf.Reason // what to_device counts
	refused                 bpf.Reason // in one direction at least, and the other checks in then
	replyLoose              bool       // sometimes carried
	idle                    bool       // nothing is counted while it is looked at
}

const (
	toContainer = bpf.ZiplineReasonREASON_TRACKED_LOCAL
	toUplink    = bpf.ZiplineReasonREASON_TRACKED_UPLINK
)

func TestFlowsSayWhatTheProgramsDo(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.RequireKernel(t, "conntrack functions", loader.HaveConntrack())
	n := newFlowsNode(t)
	n.Node.SetSysctl(t, "netfilter/nf_conntrack_acct", "1")
	n.Node.MustRunInput(t, `table ip user {
	map hostports { type inet_service : ipv4_addr . inet_service; }
	chain pre { type nat hook prerouting priority dstnat; dnat to tcp dport map @hostports; dnat to udp dport map @hostports; }
}
table inet marker {
	set marked { type inet_service; }
	chain pre { type filter hook prerouting priority mangle; th dport @marked ct mark set ct mark or 0x10; }
}`, "nft", "-f", "-")
	a, b := n.attach("net", 77, map[string]any{"forwarding": "direct"}), n.attach("net", 77, map[string]any{"forwarding": "direct"})
	tracked := map[string]any{"forwarding": "tracked", "slowPathMark": 0x10}
	c, d := n.attach("strict", 78, tracked), n.attach("strict", 78, tracked)
	k := n.attach("plain", 79, map[string]any{"forwarding": "kernel"})
	for i, fc := range flowCases(t, n, a, b, c, d, k) {
		t.Run(fc.name, func(t *testing.T) { n.checkFlow(t, fc, uint16(20000+i)) })
	}
	n.checkListing(t, startTalk(t, "tcp", &c.Namespace, d.ServeTCP(t, netip.AddrPortFrom(d.v4, 25000)).Addr))
	n.checkTable(t, &a.Namespace, c)
}

func flowCases(t *testing.T, n *flowsNode, a, b, c, d, k *flowsPod) []flowCase {
	service := netip.MustParseAddr("10.96.0.10")
	run := func(line string) { n.Node.MustRun(t, "sh", "-c", line) }
	dnat := func(to *flowsPod) func(uint16) {
		return func(port uint16) {
			run(fmt.Sprintf("nft add element ip user hostports { %d : %s . %d }", port, to.v4, port))
		}
	}
	mark := func(port uint16) { run(fmt.Sprintf("nft add element inet marker marked { %d }", port)) }
	nft := func(text string) func(uint16) {
		return func(port uint16) {
			n.Node.MustRunInput(t, strings.ReplaceAll(text, "PORT", fmt.Sprint(port)), "nft", "-f", "-")
		}
	}
	const (
		fromUplink      = bpf.HookUplink
		slow, direct    = bpf.ZiplineReasonREASON_NEXT_SLOW_MARK, bpf.ZiplineReasonREASON_DIRECT
		checkIn         = bpf.ZiplineReasonREASON_NEXT_CHECK_IN
		policy, xfrm    = bpf.ZiplineReasonREASON_NEXT_POLICY_ROUTES, bpf.ZiplineReasonREASON_NEXT_XFRM
		helper, timeout = bpf.ZiplineReasonREASON_NEXT_HELPER, bpf.ZiplineReasonREASON_NEXT_TIMEOUT
		opening         = bpf.ZiplineReasonREASON_NEXT_NOT_ESTABLISHED
	)
	pod := func(p *flowsPod) *testrig.Namespace { return &p.Namespace }
	cases := []flowCase{
		{name: "direct, past conntrack", from: pod(a), to: pod(b), listen: b.v4, absent: true, original: direct, reply: direct},
		{name: "tracked", from: pod(c), to: pod(d), listen: d.v4, original: toContainer, reply: toContainer},
		{name: "tracked, IPv6", from: pod(c), to: pod(d), listen: d.v6, original: toContainer, reply: toContainer},
		{name: "masqueraded", from: pod(a), to: n.Outside, listen: testrig.InternetIPv4,
			translation: []string{"SNAT to 192.0.2.1:SOURCE"}, original: toUplink, reply: toContainer, replyHook: fromUplink},
		{name: "masqueraded, IPv6", from: pod(a), to: n.Outside, listen: testrig.InternetIPv6,
			translation: []string{"SNAT to [2001:db8:ffff::1]:SOURCE"}, original: toUplink, reply: toContainer, replyHook: fromUplink},
		{name: "to a host port", from: n.Outside, to: pod(a), listen: a.v4, dial: testrig.NodeIPv4, prepare: dnat(a),
			translation: []string{"DNAT from 192.0.2.1:PORT"}, original: toContainer, originalHook: fromUplink, reply: toUplink},
		{name: "to a service", from: pod(a), to: pod(c), listen: c.v4, dial: service, prepare: dnat(c),
			translation: []string{"SNAT to 10.78.0.1:", "DNAT from 10.96.0.10:PORT"}, original: toContainer, reply: toContainer},
		{name: "kept in the stack by its mark", from: pod(c), to: n.Outside, listen: testrig.InternetIPv4, prepare: mark,
			translation: []string{"SNAT to 192.0.2.1:SOURCE"}, refused: slow},
		{name: "with a container that the kernel forwards", from: pod(c), to: pod(k), listen: k.v4,
			translation: []string{"SNAT to 10.79.0.1:"}, original: checkIn, originalDetail: "leaves by a device without our programs", replyWhy: "no program on the device"},
		{name: "with the node", from: pod(a), to: &n.Node.Namespace, listen: testrig.NodeIPv4, original: checkIn, originalDetail: "ends at the node itself", replyWhy: "sent by the node itself"},
		{name: "while the node has IPsec policies", from: pod(a), to: n.Outside, listen: testrig.InternetIPv4,
			prepare:     func(uint16) { run("ip xfrm policy add src 203.0.113.1 dst 203.0.113.2 dir out") },
			undo:        func() { run("ip xfrm policy flush") },
			translation: []string{"SNAT to 192.0.2.1:SOURCE"}, refused: xfrm},
		// The last, for the kernel never forgets that there were rules. Its packets
		// keep the answers from being admitted for long.
		{name: "while the node has rules", from: pod(a), to: n.Outside, listen: testrig.InternetIPv4,
			prepare: func(uint16) { run("ip rule add fwmark 0x77 lookup 77") }, undo: func() { run("ip rule del fwmark 0x77") },
			translation: []string{"SNAT to 192.0.2.1:SOURCE"}, original: policy, replyLoose: true},
	}
	var all []flowCase
	for _, fc := range cases {
		for _, network := range []string{"tcp", "udp"} {
			fc := fc
			fc.name, fc.network = network+" "+fc.name, network
			all = append(all, fc)
		}
	}
	return append(all, flowCase{name: "tcp with a helper", network: "tcp", from: pod(c), to: pod(d), listen: d.v4, prepare: nft(`table ip aid {
	ct helper ftp { type "ftp" protocol tcp; }
	chain pre { type filter hook prerouting priority filter; tcp dport PORT ct helper set "ftp"
	}
}`), original: helper, reply: helper}, flowCase{name: "tcp with a timeout of somebody's", network: "tcp", from: pod(c), to: pod(d), listen: d.v4, prepare: nft(`table inet others {
	ct timeout long { protocol tcp; l3proto ip; policy = { established : 60 }; }
	chain pre { type filter hook prerouting priority -150; tcp dport PORT ct timeout set "long"
	}
}`), original: checkIn, reply: checkIn, device: timeout, idle: true}, flowCase{name: "udp without an answer", network: "udp", from: pod(a), listen: testrig.InternetIPv4,
		translation: []string{"SNAT to 192.0.2.1:SOURCE"}, original: opening, replyLoose: true, idle: true})
}

func (n *flowsNode) checkFlow(t *testing.T, fc flowCase, port uint16) {
	if fc.prepare != nil {
		fc.prepare(port)
	}
	if fc.undo != nil {
		defer fc.undo()
	}
	to := netip.AddrPortFrom(fc.listen, port)
	if fc.to != nil {
		serve := fc.to.ServeTCP
		if fc.network == "udp" {
			serve = fc.to.ServeUDP
		}
		server := serve(t, to)
		defer server.Close()
	}
	if fc.dial.IsValid() {
		to = netip.AddrPortFrom(fc.dial, port)
	}
	flow := startTalk(t, fc.network, fc.from, to)
	defer flow.stop()
	time.Sleep(300 * time.Millisecond)
	before := n.counters(t)
	seen := n.flows(t, "--port", fmt.Sprint(port), "--protocol", fc.network)
	time.Sleep(200 * time.Millisecond)
	after := n.counters(t)
	if fc.refused != 0 {
		grown := uint64(0)
		for _, hook := range []bpf.Hook{bpf.HookEndpoint, bpf.HookUplink} {
			grown += after[counterKey{hook, fc.refused}] - before[counterKey{hook, fc.refused}]
		}
		if grown < 10 {
			t.Errorf("%d packets counted as %q; want many", grown, fc.refused)
		}
	}
	if grown := after[counterKey{bpf.HookDevice, fc.device}] - before[counterKey{bpf.HookDevice, fc.device}]; fc.device != 0 && grown < 10 {
		t.Errorf("to_device counted %d packets as %q; want many", grown, fc.device)
	}
	if !fc.idle {
		for _, key := range []counterKey{{fc.originalHook, fc.original}, {fc.replyHook, fc.reply}} {
			if grown := after[key] - before[key]; key.reason != 0 && grown < 10 {
				t.Errorf("%s counted %d packets as %q; want many", key.hook, grown, key.reason)
			}
		}
	}
	if fc.absent {
		if len(seen) != 0 {
			t.Errorf("flows %+v; want none", seen)
		}
		return
	}
	if len(seen) != 1 {
		t.Fatalf("%d flows to port %d: %+v", len(seen), port, seen)
	}
	n.compareFlow(t, fc, flow, seen[0])
}

func (n *flowsNode) compareFlow(t *testing.T, fc flowCase, flow *talk, got flowJSON) {
	t.Helper()
	for i, want := range fc.translation {
		want = strings.NewReplacer("PORT", fmt.Sprint(flow.port), "SOURCE", fmt.Sprint(flow.source.Port())).Replace(want)
		if len(got.Translation) != len(fc.translation) || !strings.HasPrefix(got.Translation[i], want) {
			t.Errorf("translation %q; want %q", got.Translation, want)
		}
	}
	if len(fc.translation) == 0 && len(got.Translation) > 0 {
		t.Errorf("translation %q; want none", got.Translation)
	}
	check := func(direction string, d flowDirectionJSON, reason bpf.Reason, hook bpf.Hook, why, detail string) {
		program := hook.String()
		if reason == 0 {
			program = ""
		} else {
			why = reason.String()
		}
		if d.Reason != why || d.Detail != detail || d.Program != program || d.Carried != (reason != 0 && reason.Verdict() == bpf.VerdictRedirect) {
			t.Errorf("%s: %+v; want %q by %q of %+v", direction, d, why, program, got)
		}
	}
	if fc.refused != 0 {
		refused := 0
		for _, d := range []flowDirectionJSON{got.Original, got.Reply} {
			if d.Reason == fc.refused.String() && d.Detail == "" {
				refused++
			} else if d.Reason != bpf.ZiplineReasonREASON_NEXT_CHECK_IN.String() || d.Detail != "as long as the other direction is refused" {
				t.Errorf("%+v; want %q, or the check-in that follows from it", d, fc.refused)
			}
		}
		if refused == 0 || got.Carried != carriedNone {
			t.Errorf("flow %+v; want %q", got, fc.refused)
		}
		return
	}
	check("original", got.Original, fc.original, fc.originalHook, "", fc.originalDetail)
	if !fc.replyLoose {
		check("reply", got.Reply, fc.reply, fc.replyHook, fc.replyWhy, "")
	}
}
