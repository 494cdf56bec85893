// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/internal/testutil"
	"github.com/zipline-cni/zipline/loader"
)

func TestBPFFSAndSwitches(t *testing.T) {
	examine(t, []illness{
		{"no bpffs", func(p *patient) { p.shell("umount /sys/fs/bpf") }, []string{"info bpffs"}},
		{"a bpffs that is read-only", func(p *patient) {
			p.shell("mount -o remount,ro /sys/fs/bpf")
		}, []string{"warning bpffs", "warning tier"}},
		{"something else in its place", func(p *patient) {
			p.shell("mount -t tmpfs none /sys/fs/bpf")
		}, []string{"warning bpffs", "warning tier"}},
		{"no eBPF where it is asked for by name", func(p *patient) {
			p.shell("mount -o remount,ro /sys/fs/bpf")
			p.network("named", `, "forwarding": "direct", "isGateway": true`)
			p.network("other", `, "isGateway": true`)
		}, []string{"info ipv6-forwarding", "problem tier: named", "warning bpffs", "warning tier"}},
		{"ip netns exec", func(p *patient) {
			p.shell("mount -t bpf none /sys/fs/bpf") // another one than the first process has
		}, []string{"warning bpffs-lifetime"}},
		{"a read-only file system above the state directory", func(p *patient) {
			p.shell("mount -t tmpfs none /run; mkdir /run/zipline; mount -o remount,ro /run")
		}, []string{"problem state-directory"}},
		{"a state directory that is read-only", func(p *patient) {
			p.shell("mkdir -p /run/zipline; mount -t tmpfs -o ro none /run/zipline")
		}, []string{"problem state-directory"}},
		{"everybody may load programs", func(p *patient) {
			p.options.sysctls["kernel/unprivileged_bpf_disabled"] = "0"
		}, []string{"info unprivileged-bpf"}},
		{"the knob, by somebody else", func(p *patient) { p.options.sysctls[expeditedKnob] = "1" }, []string{"info rcu-expedited"}},
		{"the knob, left behind", func(p *patient) {
			p.options.sysctls[expeditedKnob] = "1"
			p.shell("mkdir -p /run/zipline; printf 1 > /run/zipline/rcu")
		}, []string{"warning rcu-expedited"}},
		{"the knob, at work", func(p *patient) {
			p.options.sysctls[expeditedKnob] = "1"
			p.shell("mkdir -p /run/zipline; printf 1 > /run/zipline/rcu; flock -s /run/zipline/rcu sleep 30 >/dev/null 2>&1 & echo $! > /run/holder; until ! flock -xn /run/zipline/rcu true; do sleep 0.01; done")
			p.t.Cleanup(func() { _, _ = p.Run("sh", "-c", "kill $(cat /run/holder)") })
		}, nil},
	})
}

func TestNetfilter(t *testing.T) {
	examine(t, []illness{
		{"bridge-nf-call-iptables", func(p *patient) {
			p.options.sysctls["net/bridge/bridge-nf-call-iptables"] = "1"
		}, []string{"info bridge-netfilter"}},
		{"be_liberal put back", func(p *patient) {
			p.network("one", `, "isGateway": true`)
			p.endpoint("zl0")
			p.SetSysctl(p.t, "netfilter/nf_conntrack_tcp_be_liberal", "0")
		}, []string{"warning conntrack-liberal: nf_conntrack_tcp_be_liberal"}},
		{"be_liberal put back, and nothing is carried", func(p *patient) {
			p.network("one", `, "isGateway": true, "forwarding": "kernel"`)
			p.endpoint("zl0")
			p.SetSysctl(p.t, "netfilter/nf_conntrack_tcp_be_liberal", "0")
		}, nil},
		{"short timeouts", func(p *patient) {
			p.SetSysctl(p.t, "netfilter/nf_conntrack_udp_timeout_stream", "2")
			p.SetSysctl(p.t, "netfilter/nf_conntrack_tcp_timeout_established", "60")
		}, []string{"warning conntrack-timeouts: nf_conntrack_tcp_timeout_established", "warning conntrack-timeouts: nf_conntrack_udp_timeout_stream"}},
		{"a table that fills", func(p *patient) { p.options.sysctls["net/netfilter/nf_conntrack_count"] = "213000" }, []string{"warning conntrack-table"}},
		{"a full table", func(p *patient) { p.options.sysctls["net/netfilter/nf_conntrack_count"] = "262144" }, []string{"problem conntrack-table"}},
		{"a policy of drop", func(p *patient) {
			p.shell("nft add table inet other; nft 'add chain inet other forward_ { type filter hook forward priority 0; policy drop; }'; nft 'add rule inet other forward_ iifname eth0 accept'; nft 'add chain inet other input_ { type filter hook input priority 0; policy drop; }'")
		}, []string{"warning forward-policy: inet other forward_"}},
		{"a policy of accept", func(p *patient) {
			p.shell("nft add table inet other; nft 'add chain inet other forward_ { type filter hook forward priority 0; policy accept; }'")
		}, nil},
		{"chains on devices", func(p *patient) {
			p.endpoint("zl0")
			p.shell(`ip link add aside type veth peer name aside2; nft add table netdev other
				nft 'add chain netdev other one_ { type filter hook ingress device uplink0 priority 0; }'
				nft 'add chain netdev other two_ { type filter hook egress devices = { zl0, aside } priority 0; }'
				nft 'add chain netdev other three_ { type filter hook ingress device aside priority 0; }'
				nft 'add chain netdev other none_'`)
		}, []string{"warning netdev-chains: netdev other one_", "warning netdev-chains: netdev other two_"}},
		{"a policy of drop, with the plugin firewall", func(p *patient) {
			p.shell("nft add table ip other; nft 'add chain ip other forward_ { type filter hook forward priority 0; policy drop; }'")
			p.write("/etc/cni/net.d/one.conflist", `{"cniVersion": "1.0.0", "name": "one", "plugins": [
				{"type": "zipline", "isGateway": true, "ipam": {"type": "host-local", "subnet": "10.77.0.0/16"}}, {"type": "firewall"}]}`)
		}, []string{"info forward-policy: ip other forward_", "info ipv6-forwarding"}},
	})
}

// TestMendingTheForwardPolicy pastes the command.
func TestMendingTheForwardPolicy(t *testing.T) {
	for _, family := range []string{"inet", "ip", "ip6"} {
		p := newPatient(t)
		p.shell(fmt.Sprintf("nft add table %s other; nft 'add chain %[1]s other forward_ { type filter hook forward priority 0; policy drop; }'", family))
		r := p.run("forward-policy")
		if r.Worst() != Warning {
			t.Fatalf("%s: %+v", family, r.Findings)
		}
		p.shell(r.Findings[0].Mend)
		if found := complaints(p.run("forward-policy")); len(found) > 0 {
			t.Errorf("%s: after %q: %q", family, r.Findings[0].Mend, found)
		}
	}
}

// TestMendingWhatIPTablesMade: its rules are not nft's own.
func TestMendingWhatIPTablesMade(t *testing.T) {
	testutil.RequireProgram(t, "iptables-nft")
	p := newPatient(t)
	for _, command := range []string{"iptables", "ip6tables"} {
		p.shell(command + "-nft -P FORWARD DROP")
	}
	r := p.run("forward-policy")
	if len(complaints(r)) != 2 {
		t.Fatalf("%+v", r.Findings)
	}
	for _, f := range r.Findings {
		p.shell(strings.ReplaceAll(f.Mend, "tables -I", "tables-nft -I"))
	}
	if found := complaints(p.run("forward-policy")); len(found) > 0 {
		t.Errorf("after mending: %q", found)
	}
}

func TestTCUsers(t *testing.T) {
	illnesses := []illness{
		{"a filter at the uplink's ingress", func(p *patient) {
			p.shell("tc qdisc add dev uplink0 clsact; tc filter add dev uplink0 ingress prio 7 u32 match u32 0 0 flowid 1:1")
		}, []string{"warning tc-programs: uplink0 ingress"}},
		{"a filter at the uplink's egress", func(p *patient) {
			p.shell("tc qdisc add dev uplink0 clsact; tc filter add dev uplink0 egress prio 7 u32 match u32 0 0 flowid 1:1")
		}, []string{"info tc-programs: uplink0 egress"}},
		{"a filter at a host veth's egress", func(p *patient) {
			p.endpoint("zl0")
			p.shell("tc qdisc add dev zl0 clsact; tc filter add dev zl0 egress prio 7 u32 match u32 0 0 flowid 1:1")
		}, []string{"warning tc-programs: zl0 egress"}},
		{"a limit at a host veth", func(p *patient) {
			p.endpoint("zl0")
			p.shell("tc qdisc add dev zl0 root tbf rate 1mbit burst 32kbit latency 400ms")
		}, []string{"warning shaping"}},
		{"a limit elsewhere", func(p *patient) {
			p.shell("tc qdisc add dev uplink0 root tbf rate 1mbit burst 32kbit latency 400ms")
		}, nil},
	}
	if loader.HaveTCX() == nil {
		illnesses = append(illnesses,
			illness{"a TCX program of others", func(p *patient) { p.attachTCX("uplink0", "other") }, []string{"info tc-programs: uplink0 ingress"}},
			illness{"a TCX program behind ours", func(p *patient) {
				p.attachTCX("uplink0", "from_uplink")
				p.attachTCX("uplink0", "other")
			}, []string{"warning tc-programs: uplink0 ingress"}},
			illness{"a TCX program before ours", func(p *patient) {
				p.attachTCX("uplink0", "other")
				p.attachTCX("uplink0", "from_uplink")
			}, []string{"info tc-programs: uplink0 ingress"}},
			illness{"ours alone", func(p *patient) { p.attachTCX("uplink0", "from_uplink") }, nil},
		)
	}
	testutil.RequireProgram(t, "tc")
	examine(t, illnesses)
}

// attachTCX puts a program that does nothing at the tail of a device's ingress.
func (p *patient) attachTCX(device, name string) {
	p.t.Helper()
	err := p.Do(func() error {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: name, Type: ebpf.SchedCLS, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
		})
		if err != nil {
			return err
		}
		defer func() { _ = prog.Close() }() // the device holds it
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		return link.RawAttachProgram(link.RawAttachProgramOptions{
			Target: l.Attrs().Index, Program: prog, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail(),
		})
	})
	if err != nil {
		p.t.Fatal(err)
	}
}
