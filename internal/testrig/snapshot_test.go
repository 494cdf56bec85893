// SPDX-License-Identifier: Apache-2.0

package testrig_test

import (
	"errors"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

func TestSnapshotOfAnIdleNodeDoesNotChange(t *testing.T) {
	testutil.RequireProgram(t, "nft")
	w := testrig.New(t, testrig.Options{})
	first := w.Node.Snapshot(t)
	if err := w.Node.Ping(testrig.InternetIPv4); err != nil {
		t.Fatal(err)
	}
	w.Node.NewContainer(t, "c1")
	if diff := first.Diff(w.Node.Snapshot(t)); diff != nil {
		t.Errorf("an idle node changed:\n%s", strings.Join(diff, "\n"))
	}
}

func TestSnapshotShowsEachKindOfChange(t *testing.T) {
	testutil.RequireProgram(t, "nft")
	for _, c := range []struct{ kind, command string }{
		{"link", "ip link add d0 type veth"},
		{"link", "ip link set " + testrig.Uplink + " mtu 1400"},
		{"address", "ip addr add 192.0.2.77/32 dev lo"},
		{"route", "ip route add 10.0.0.0/8 via 192.0.2.2 table 77"},
		{"route", "ip -6 route add unreachable fd00:9::/64"},
		{"rule", "ip rule add from 10.0.0.0/8 lookup 77"},
		{"neighbour", "ip neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev " + testrig.Uplink},
		{"proxy", "ip -6 neigh add proxy fd00::1 dev " + testrig.Uplink},
		{"nft", "nft add table inet t"},
		{"nft", "nft add table inet t; nft add set inet t s '{type ipv4_addr; elements={1.2.3.4, 5.6.7.8};}'"},
		{"sysctl", "echo 1 > /proc/sys/net/ipv4/ip_forward"},
		{"file", "mkdir -p /run/zipline/1; touch /run/zipline/1/lock"},
		{"clsact", "tc qdisc add dev " + testrig.Uplink + " clsact"},
		{"program", "tc qdisc add dev " + testrig.Uplink + " clsact; tc filter add dev " + testrig.Uplink +
			" egress bpf bytecode '1,6 0 0 0'"},
		{"file", "mkdir /sys/fs/bpf/zipline"},
		{"file", "mkdir -p /var/lib/cni/networks/n; echo c1 > /var/lib/cni/networks/n/10.0.0.2"},
	} {
		t.Run(c.command, func(t *testing.T) {
			w := testrig.New(t, testrig.Options{})
			before := w.Node.Snapshot(t)
			w.Node.MustRun(t, "sh", "-c", c.command)
			diff := before.Diff(w.Node.Snapshot(t))
			if len(diff) == 0 || !strings.Contains(strings.Join(diff, "\n"), " "+c.kind+" ") {
				t.Errorf("no %s in the difference:\n%s", c.kind, strings.Join(diff, "\n"))
			}
			if left := before.Diff(w.Node.Snapshot(t), regexp.MustCompile(".")); left != nil {
				t.Errorf("everything was allowed, yet these differ: %q", left)
			}
		})
	}
}

// TestSnapshotShowsEachEntry has two entries in a pinned map and takes one away.
func TestSnapshotShowsEachEntry(t *testing.T) {
	testutil.RequireProgram(t, "nft")
	testutil.RequireProgram(t, "bpftool")
	w := testrig.New(t, testrig.Options{})
	w.Node.MustRun(t, "sh", "-c", `d=/sys/fs/bpf/zipline/1/v1; mkdir -p $d
		bpftool map create $d/endpoints type hash key 2 value 1 entries 2 name endpoints flags 1
		bpftool map update pinned $d/endpoints key hex 00 01 value hex 07; bpftool map update pinned $d/endpoints key hex 00 02 value hex 07`)
	before := w.Node.Snapshot(t)
	w.Node.MustRun(t, "bpftool", "map", "delete", "pinned", "/sys/fs/bpf/zipline/1/v1/endpoints", "key", "hex", "00", "02")
	if diff := before.Diff(w.Node.Snapshot(t)); !slices.Equal(diff, []string{"- entry endpoints 0002 = 07"}) {
		t.Errorf("the difference is %q", diff)
	}
}

// TestSnapshotShowsPrograms attaches one, which outlives who attached it, and takes
// it off again.
func TestSnapshotShowsPrograms(t *testing.T) {
	testutil.RequireProgram(t, "nft")
	w := testrig.New(t, testrig.Options{})
	before := w.Node.Snapshot(t)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "somebodys", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TCX_NEXT
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	var index int
	err = w.Node.Do(func() error {
		device, err := net.InterfaceByName(testrig.Uplink)
		if err != nil {
			return err
		}
		index = device.Index
		return link.RawAttachProgram(link.RawAttachProgramOptions{Target: index, Program: program, Attach: ebpf.AttachTCXEgress})
	})
	if errors.Is(err, unix.EINVAL) { // before 6.6
		testutil.RequireKernel(t, "tcx", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"+ program " + testrig.Uplink + " egress somebodys"}
	if diff := before.Diff(w.Node.Snapshot(t)); !slices.Equal(diff, want) {
		t.Errorf("with a program, the difference is %q; want %q", diff, want)
	}
	err = w.Node.Do(func() error {
		return link.RawDetachProgram(link.RawDetachProgramOptions{Target: index, Program: program, Attach: ebpf.AttachTCXEgress})
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := before.Diff(w.Node.Snapshot(t)); diff != nil {
		t.Errorf("after it was taken off, the difference is %q", diff)
	}
}
