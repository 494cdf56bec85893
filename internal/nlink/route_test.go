// SPDX-License-Identifier: Apache-2.0

package nlink

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// inNetns runs f on a thread in a namespace of its own, which ends with it.
func inNetns(t *testing.T, f func()) {
	t.Helper()
	testutil.RequireRoot(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer close(done) // also when f ends the test
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		f()
	}()
	for err := range done {
		t.Fatalf("make network namespace: %v", err)
	}
}

func run(t *testing.T, command string) {
	t.Helper()
	fields := strings.Fields(command)
	if out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", command, err, out)
	}
}

func index(t *testing.T, name string) int {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Errorf("read %s: %v", name, err)
		return 0
	}
	return link.Attrs().Index
}

func collect(t *testing.T, filter RouteFilter, most int) []string {
	t.Helper()
	var got []string
	err := EachRoute(filter, func(r Route) bool {
		got = append(got, fmt.Sprintf("%s type %d proto %d metric %d", r.Dst, r.Type, r.Protocol, r.Priority))
		return len(got) < most
	})
	if err != nil {
		t.Errorf("EachRoute(%+v): %v", filter, err)
	}
	return got
}

func TestEachRouteFiltersByFamilyDeviceAndProtocol(t *testing.T) {
	inNetns(t, func() {
		run(t, "ip link add va type veth peer name vb")
		run(t, "ip link set va up")
		run(t, "ip link set vb up")
		run(t, "ip route add 10.1.0.1/32 dev va proto 122")
		run(t, "ip route add 10.1.0.2/32 dev vb proto 122")
		run(t, "ip route add 10.1.0.3/32 dev va")
		run(t, "ip route add unreachable 10.1.0.0/16 proto 122 metric 4294967295")
		run(t, "ip route add default dev vb")
		run(t, "ip route add 10.9.0.0/16 dev va table 99 proto 122")
		run(t, "ip -6 route add fd00::1/128 dev va proto 122")
		cases := []struct {
			name   string
			filter RouteFilter
			most   int
			want   string
		}{
			{"device and protocol", RouteFilter{Family: unix.AF_INET, Device: index(t, "va"), Protocol: 122}, 9, "10.1.0.1/32 type 1 proto 122 metric 0"},
			{"protocol alone, unreachable routes too", RouteFilter{Family: unix.AF_INET, Protocol: 122}, 9,
				"10.1.0.0/16 type 7 proto 122 metric 4294967295|10.1.0.1/32 type 1 proto 122 metric 0|10.1.0.2/32 type 1 proto 122 metric 0"},
			{"IPv6", RouteFilter{Family: unix.AF_INET6, Protocol: 122}, 9, "fd00::1/128 type 1 proto 122 metric 1024"},
			{"the default route comes first", RouteFilter{Family: unix.AF_INET}, 1, "0.0.0.0/0 type 1 proto 3 metric 0"},
		}
		for _, c := range cases {
			got := strings.Join(collect(t, c.filter, c.most), "|")
			if got != c.want {
				t.Errorf("%s: got %s, want %s", c.name, got, c.want)
			}
		}
	})
}

func TestEachRouteStopsWithoutReadingTheWholeTable(t *testing.T) {
	inNetns(t, func() {
		run(t, "ip link add va type veth peer name vb")
		run(t, "ip link set va up")
		link, err := netlink.LinkByName("va")
		if err != nil {
			t.Errorf("read a: %v", err)
			return
		}
		for i := range 3000 {
			dst := netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Protocol: 122, Dst: netlink.NewIPNet(dst.AsSlice())}); err != nil {
				t.Errorf("add route %s: %v", dst, err)
				return
			}
		}
		if got := collect(t, RouteFilter{Family: unix.AF_INET, Protocol: 122}, 1); len(got) != 1 {
			t.Errorf("saw %d routes, want 1", len(got))
		}
		if got := collect(t, RouteFilter{Family: unix.AF_INET, Protocol: 122}, 1<<20); len(got) != 3000 {
			t.Errorf("saw %d routes, want 3000", len(got))
		}
	})
}

func TestSetLinkChangesAllAtOnce(t *testing.T) {
	inNetns(t, func() {
		run(t, "ip link add va type veth peer name vb")
		change := LinkChange{Up: true, Alias: "zipline x", Conf4: map[int]uint32{ConfForwarding: 1, ConfProxyARP: 1, ConfARPNotify: 1}, NoLinkLocal6: true, OffloadSize4: 1 << 17}
		if err := SetLink(index(t, "va"), change); err != nil {
			t.Errorf("SetLink: %v", err)
			return
		}
		link, err := netlink.LinkByName("va")
		if err != nil {
			t.Errorf("read a: %v", err)
			return
		}
		attrs := link.Attrs()
		if attrs.Alias != "zipline x" || attrs.RawFlags&unix.IFF_UP == 0 {
			t.Errorf("alias %q flags %x", attrs.Alias, attrs.RawFlags)
		}
		if attrs.GSOMaxSize != 1<<16 || attrs.GROMaxSize != 1<<16 || attrs.GSOIPv4MaxSize != 1<<17 || attrs.GROIPv4MaxSize != 1<<17 {
			t.Errorf("offload sizes %d %d %d %d", attrs.GSOMaxSize, attrs.GROMaxSize, attrs.GSOIPv4MaxSize, attrs.GROIPv4MaxSize)
		}
		for _, name := range []string{"forwarding", "proxy_arp", "arp_notify"} {
			out, err := exec.Command("sysctl", "-n", "net.ipv4.conf.va."+name).Output()
			if err != nil || strings.TrimSpace(string(out)) != "1" {
				t.Errorf("%s is %q (%v)", name, out, err)
			}
		}
	})
}

func TestSetLinkOfNoDevice(t *testing.T) {
	inNetns(t, func() {
		if err := SetLink(4711, LinkChange{Up: true}); err == nil {
			t.Error("SetLink of a device that does not exist succeeded")
		}
	})
}

func FuzzParseRoute(f *testing.F) {
	f.Add(append([]byte{2, 32, 0, 0, 254, 122, 0, 1, 0, 0, 0, 0}, 8, 0, 1, 0, 10, 1, 0, 1))
	f.Fuzz(func(_ *testing.T, data []byte) { ParseRoute(data) })
}
