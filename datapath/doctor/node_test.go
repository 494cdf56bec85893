// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/internal/nlink"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// A default route by another device, which is an uplink then.
const secondUplink = "ip link add second type veth peer name other; ip link set second up; ip addr add 203.0.113.1/24 dev second; ip route add default via 203.0.113.2 metric 500; "

func TestRouting(t *testing.T) {
	examine(t, []illness{
		{"forwarding switched off", func(p *patient) {
			p.network("one", `, "isGateway": true`)
			p.endpoint("zl0")
			p.SetSysctl(p.t, "ipv4/ip_forward", "0")
		}, []string{"problem ipv4-forwarding"}},
		{"forwarding off, and a network that is not to be found", func(p *patient) {
			p.endpoint("zl0")
			p.SetSysctl(p.t, "ipv4/ip_forward", "0")
		}, []string{"warning ipv4-forwarding"}},
		{"a network that is configured elsewhere", func(p *patient) {
			p.options.ConfigDir = "/var/lib/k3s"
			p.write("/var/lib/k3s/10.conf", networkJSON("one", `, "mtu": 9000, "isGateway": true`))
		}, []string{"info ipv6-forwarding", "warning mtu: one"}},
		{"forwarding that nobody will switch on", func(p *patient) { p.network("one", "") }, []string{"info ipv4-forwarding", "info ipv6-forwarding"}},
		{"forwarding that the first ADD will switch on", func(p *patient) { p.network("one", `, "isGateway": true`) }, []string{"info ipv6-forwarding"}},
		{"forwarding off at an uplink", func(p *patient) {
			p.SetSysctl(p.t, "ipv4/ip_forward", "1")
			p.SetSysctl(p.t, "ipv4/conf/uplink0/forwarding", "0")
		}, []string{"warning ipv4-forwarding: uplink0"}},
		{"a default route by router advertisement", func(p *patient) {
			p.SetSysctl(p.t, "ipv6/conf/uplink0/accept_ra", "1")
			p.SetSysctl(p.t, "ipv6/conf/all/forwarding", "1")
			p.shell("ip -6 route replace default via 2001:db8:ffff::2 dev uplink0 proto ra")
		}, []string{"warning router-advertisements: uplink0"}},
		{"a default route that the first ADD will lose", func(p *patient) {
			p.SetSysctl(p.t, "ipv6/conf/uplink0/accept_ra", "1")
			p.write("/etc/cni/net.d/one.conf", `{"cniVersion": "1.0.0", "name": "one", "type": "zipline", "isGateway": true,
				"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/16"}], [{"subnet": "fd00:77::/64"}]]}}`)
			p.shell("ip -6 route replace default via 2001:db8:ffff::2 dev uplink0 proto ra")
		}, []string{"warning router-advertisements: uplink0"}},
		{"a router that listens to routers", func(p *patient) {
			p.SetSysctl(p.t, "ipv6/conf/uplink0/accept_ra", "2")
			p.SetSysctl(p.t, "ipv6/conf/all/forwarding", "1")
			p.shell("ip -6 route replace default via 2001:db8:ffff::2 dev uplink0 proto ra")
		}, nil},
		{"strict rp_filter with one uplink", func(p *patient) { p.SetSysctl(p.t, "ipv4/conf/all/rp_filter", "1") }, nil},
		{"strict rp_filter with two uplinks", func(p *patient) {
			p.shell(secondUplink)
			p.SetSysctl(p.t, "ipv4/conf/all/rp_filter", "0")
			p.SetSysctl(p.t, "ipv4/conf/second/rp_filter", "1")
		}, []string{"info big-tcp: second", "warning rp-filter: second"}},
		{"loose rp_filter with two uplinks", func(p *patient) {
			p.shell(secondUplink)
			p.SetSysctl(p.t, "ipv4/conf/all/rp_filter", "2")
			p.SetSysctl(p.t, "ipv4/conf/second/rp_filter", "1")
		}, []string{"info big-tcp: second"}},
		{"policy routing", func(p *patient) { p.shell("ip rule add fwmark 1 lookup 100; ip -6 rule add from fd00::/8 lookup 100") },
			[]string{"info policy-rules: IPv4", "info policy-rules: IPv6"}},
		{"a multipath hash of ports", func(p *patient) { p.SetSysctl(p.t, "ipv4/fib_multipath_hash_policy", "1") }, []string{"info multipath: ipv4"}},
		{"IPsec", func(p *patient) {
			p.shell("ip xfrm policy add src 10.0.0.0/8 dst 10.1.0.0/16 dir out tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel")
		}, []string{"info ipsec"}},
		{"a small neighbour table", func(p *patient) {
			p.endpoint("zl0")
			p.options.sysctls["net/ipv4/neigh/default/gc_thresh3"] = "1"
		}, []string{"warning neighbour-table: ipv4"}},
	})
}

func TestDevices(t *testing.T) {
	examine(t, []illness{
		{"no uplink", func(p *patient) { p.shell("ip link del uplink0") }, []string{"info uplinks"}},
		{"an uplink without Ethernet", func(p *patient) {
			p.shell("ip tuntap add tun7 mode tun; ip link set tun7 up; ip route add default dev tun7 metric 900")
		}, []string{"info big-tcp: tun7", "info uplinks: tun7"}},
		{"named uplinks", func(p *patient) {
			p.network("one", `, "isGateway": true, "uplinks": ["uplink*", "vxlan.9"]`)
		}, []string{"info ipv6-forwarding", "info uplinks: vxlan.9"}},
		{"an uplink that is smaller than endpoints", func(p *patient) {
			p.endpoint("zl0")
			p.shell("ip link set uplink0 mtu 1400")
		}, []string{"warning mtu: endpoints"}},
		{"an uplink that is smaller than a configuration", func(p *patient) {
			p.network("one", `, "isGateway": true, "mtu": 9000`)
		}, []string{"info ipv6-forwarding", "warning mtu: one"}},
		{"a bridge of before", func(p *patient) {
			p.network("one", `, "isGateway": true`)
			p.shell("ip link add cni0 type bridge; ip addr add 10.77.0.1/16 dev cni0; ip link add br1 type bridge; ip addr add 10.78.0.1/16 dev br1")
		}, []string{"info ipv6-forwarding", "warning old-bridge: cni0"}},
	})
}

func TestConfigurations(t *testing.T) {
	const gateway = `"isGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/16"}], [{"subnet": "fd00:77::/64"}]]}`
	list := func(more, chained string) string {
		return `{"cniVersion": "1.0.0", "name": "one", "plugins": [{"type": "zipline", ` + more + gateway + `}` + chained + `]}`
	}
	examine(t, []illness{
		{"one that is right", func(p *patient) { p.write("/etc/cni/net.d/10-one.conflist", list("", "")) }, nil},
		{"an unknown word", func(p *patient) { p.write("/etc/cni/net.d/10-one.conflist", list(`"forwarding": "fast", `, "")) },
			[]string{"problem cni-configuration: 10-one.conflist"}},
		{"an address pool that is none", func(p *patient) {
			p.write("/etc/cni/net.d/10.conf", `{"cniVersion": "1.0.0", "name": "one", "type": "zipline", "ipam": {"type": "host-local", "subnet": "10.77.0.0/99"}}`)
		}, []string{"problem cni-configuration: 10.conf"}},
		{"no JSON", func(p *patient) { p.write("/etc/cni/net.d/10.json", `{"type": "zipline"`) }, []string{"problem cni-configuration: 10.json"}},
		{"those of others, right or wrong", func(p *patient) {
			p.write("/etc/cni/net.d/1.conf", `{"type": "bridge", "mtu": "x"}`)
			p.write("/etc/cni/net.d/2.conf", `{"type": `)
			p.write("/etc/cni/net.d/3.conf.bak", `{"type": "zipline"`)
		}, nil},
		{"bandwidth", func(p *patient) {
			p.write("/etc/cni/net.d/1.conflist", list("", `, {"type": "portmap"}, {"type": "bandwidth"}`))
		},
			[]string{"warning cni-chain: one"}},
		{"bandwidth, and nothing is carried", func(p *patient) {
			p.write("/etc/cni/net.d/1.conflist", list(`"forwarding": "kernel", `, `, {"type": "bandwidth"}`))
		}, nil},
		{"a lease directory that is a file", func(p *patient) {
			p.write("/etc/cni/net.d/1.conflist", list("", ""))
			p.write("/var/lib/cni", "")
		}, []string{"problem lease-directory: /var/lib/cni/networks"}},
	})
}

func TestServices(t *testing.T) {
	const udev = "/usr/lib/udev/rules.d/85-nm-unmanaged.rules"
	const catchAll = "[Match]\nType=ether\n[Network]\nDHCP=yes\n"
	const keep = "[Network]\nManageForeignRoutes=no\n"
	examine(t, []illness{
		{"NetworkManager", func(p *patient) { p.process("NetworkManager") }, []string{"warning networkmanager"}},
		{"NetworkManager with its udev rules", func(p *patient) {
			p.process("NetworkManager")
			p.write(udev, "# \nENV{ID_NET_DRIVER}==\"veth\", ENV{NM_UNMANAGED}=\"1\"\n")
		}, nil},
		{"NetworkManager with its udev rules hidden", func(p *patient) {
			p.process("NetworkManager")
			p.write(udev, "ENV{ID_NET_DRIVER}==\"veth\", ENV{NM_UNMANAGED}=\"1\"\n")
			p.write("/etc/udev/rules.d/85-nm-unmanaged.rules", "")
		}, []string{"warning networkmanager"}},
		{"NetworkManager told so", func(p *patient) {
			p.process("NetworkManager")
			p.write("/etc/NetworkManager/conf.d/a.conf", "[keyfile]\nunmanaged-devices=mac:00:11:22:33:44:55;interface-name:zl*\n")
		}, nil},
		{"NetworkManager told so of devices", func(p *patient) {
			p.process("NetworkManager")
			p.write("/etc/NetworkManager/NetworkManager.conf", "[device-z]\nmatch-device=interface-name:zl*\nmanaged=0\n")
		}, nil},
		{"NetworkManager told the contrary", func(p *patient) {
			p.process("NetworkManager")
			p.write("/etc/NetworkManager/conf.d/a.conf", "[keyfile]\nunmanaged-devices=*,except:interface-name:zl*\n")
		}, []string{"warning networkmanager"}},
		{"networkd", func(p *patient) {
			p.process("systemd-network")
			p.write("/usr/lib/systemd/network/80-ve.network", "[Match]\nKind=veth\nName=ve-*\n[Network]\nDHCP=yes\n")
		}, []string{"warning networkd-routes"}},
		{"networkd with a file for everything", func(p *patient) {
			p.process("systemd-network")
			p.write("/etc/systemd/network/50.network", catchAll)
			p.write("/etc/systemd/networkd.conf", keep)
		}, []string{"warning networkd: 50.network"}},
		{"networkd with a file for everything else", func(p *patient) {
			p.process("systemd-network")
			p.write("/etc/systemd/network/50.network", "[Match]\nName=!zl*\n[Network]\nDHCP=yes\n")
			p.write("/etc/systemd/networkd.conf", keep)
		}, nil},
		{"networkd told so", func(p *patient) {
			p.process("systemd-network")
			p.write("/etc/systemd/network/05.network", "[Match]\nName=zl*\n[Link]\nUnmanaged=yes\n")
			p.write("/etc/systemd/network/50.network", catchAll)
			p.write("/etc/systemd/networkd.conf.d/z.conf", keep)
		}, nil},
		{"firewalld", func(p *patient) {
			p.process("firewalld")
			p.write("/usr/lib/firewalld/zones/trusted.xml", `<zone target="ACCEPT"></zone>`)
			p.write("/etc/firewalld/zones/public.xml", `<zone><interface name="zl+"/></zone>`)
		}, []string{"warning firewalld"}},
		{"firewalld told so", func(p *patient) {
			p.process("firewalld")
			p.write("/etc/firewalld/zones/trusted.xml", `<zone target="ACCEPT"><interface name="zl+"/></zone>`)
		}, nil},
		{"firewalld told of the subnets", func(p *patient) {
			p.process("firewalld")
			p.network("one", `, "isGateway": true`)
			p.write("/etc/firewalld/zones/trusted.xml", `<zone target="ACCEPT"><source address="10.77.0.0/16"/></zone>`)
		}, []string{"info ipv6-forwarding"}},
	})
}

func TestUplinkWithBigTCP(t *testing.T) {
	p := newPatient(t)
	err := p.Do(func() error {
		l, err := netlink.LinkByName("uplink0")
		if err != nil {
			return err
		}
		return nlink.SetLink(l.Attrs().Index, nlink.LinkChange{OffloadSize4: bigPacket})
	})
	testutil.RequireKernel(t, "BIG TCP", err)
	if found := complaints(p.run("big-tcp")); len(found) > 0 {
		t.Errorf("found %q", found)
	}
}

// TestMendingServices pastes the commands, but for what has a service read its files.
func TestMendingServices(t *testing.T) {
	for process, check := range map[string]string{"NetworkManager": "networkmanager", "systemd-network": "networkd"} {
		p := newPatient(t)
		p.process(process)
		p.write("/etc/systemd/network/50.network", "[Match]\nType=ether\n[Network]\nDHCP=yes\n")
		p.write("/etc/NetworkManager/conf.d/50.conf", "[keyfile]\nunmanaged-devices=interface-name:docker*\n")
		r := p.run(check, "networkd-routes")
		if r.Worst() != Warning {
			t.Fatalf("%s: %+v", process, r.Findings)
		}
		for _, f := range r.Findings {
			files, _, _ := strings.Cut(f.Mend, " && systemctl")
			files, _, _ = strings.Cut(files, " && networkctl")
			p.shell(strings.ReplaceAll(files, "/etc/", p.options.Root+"/etc/"))
		}
		if found := complaints(p.run(check, "networkd-routes")); len(found) > 0 {
			t.Errorf("%s: after mending: %q", process, found)
		}
	}
}
