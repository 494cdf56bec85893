// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"os/exec"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

func TestAttachedSaysWhatIsThere(t *testing.T) {
	for hook, site := range sites {
		t.Run(hook, func(t *testing.T) {
			enterNode(t)
			c := newContainer(t, 1)
			node := mustOpen(t, site, 0)
			wantError(t, node.Attached(c.index), ErrDetached)
			must(t, node.Attach(c.index))
			must(t, node.Attached(c.index))
			if err := node.Attached(9999); err == nil {
				t.Error("a missing device has the program")
			}
			if err := node.Attach(9999); err == nil || !isGone(err) {
				t.Errorf("attach to a missing device: %v", err)
			}
		})
	}
}

func TestAttachTwiceIsAttachOnce(t *testing.T) {
	for hook, site := range sites {
		t.Run(hook, func(t *testing.T) {
			enterNode(t)
			c := newContainer(t, 1)
			node := mustOpen(t, site, c.index)
			for range 3 {
				must(t, node.Attach(c.index))
				mustOpen(t, site, c.index)
			}
			ids, err := site.attachedIDs(c.index, fromEndpoint)
			must(t, err)
			if !slices.Equal(ids, []uint32{node.info.id}) {
				t.Errorf("device has programs %v, want %d alone", ids, node.info.id)
			}
		})
	}
}

// The device owns the program: nothing is left when it goes.
func TestAProgramGoesWithItsDevice(t *testing.T) {
	enterNode(t)
	c := newContainer(t, 1)
	mustOpen(t, Site{}, c.index)
	device, err := netlink.LinkByIndex(c.index)
	must(t, err)
	must(t, netlink.LinkDel(device))
	node := mustFind(t, 0)
	if err := node.Attached(c.index); err == nil {
		t.Error("the program is attached to a device that is gone")
	}
}

// foreign returns somebody else's program, which leaves every packet alone.
func foreign(tb testing.TB, name string) *ebpf.Program {
	tb.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	must(tb, err)
	tb.Cleanup(func() { _ = prog.Close() })
	return prog
}

func progID(tb testing.TB, prog *ebpf.Program) uint32 {
	tb.Helper()
	info, err := getProgInfo(prog.FD())
	must(tb, err)
	return info.id
}

func attachForeign(tb testing.TB, prog *ebpf.Program, index int, anchor link.Anchor) {
	tb.Helper()
	must(tb, link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: index, Program: prog, Attach: ebpf.AttachTCXIngress, Anchor: anchor,
	}))
}

// Ours comes after whoever is there, and keeps its place when it is replaced.
func TestTCXProgramsOfOthersKeepTheirPlace(t *testing.T) {
	enterNode(t)
	requireTCX(t)
	c := newContainer(t, 1)
	// Named like ours, but without its maps: somebody else's.
	before, after := foreign(t, "from_endpoint"), foreign(t, "after")
	attachForeign(t, before, c.index, link.Head())
	node := mustOpen(t, Site{}, 0)
	wantError(t, node.Attached(c.index), ErrDetached)
	must(t, node.Attach(c.index))
	attachForeign(t, after, c.index, link.Tail())
	outdate(t, node)
	renewed := mustOpen(t, Site{}, 0)
	ids, err := queryTCX(c.index, ebpf.AttachTCXIngress)
	must(t, err)
	want := []uint32{progID(t, before), renewed.info.id, progID(t, after)}
	if !slices.Equal(ids, want) {
		t.Errorf("device has programs %v, want %v", ids, want)
	}
	must(t, renewed.Attached(c.index))
}

func clsactFilter(prog *ebpf.Program, index int, name string, priority uint16, handle uint32) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS,
			Handle: handle, Priority: priority, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog.FD(), Name: name, DirectAction: true,
	}
}

func TestClsactFiltersOfOthersStay(t *testing.T) {
	enterNode(t)
	site := Site{ForceClsact: true}
	c := newContainer(t, 1)
	device, err := netlink.LinkByIndex(c.index)
	must(t, err)
	must(t, netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: c.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}))
	prog := foreign(t, "theirs")
	must(t, netlink.FilterAdd(clsactFilter(prog, c.index, "theirs", 1, 1)))
	must(t, netlink.FilterAdd(clsactFilter(prog, c.index, "theirs too", filterPriority, 1)))
	node := mustOpen(t, site, c.index)
	outdate(t, node)
	renewed := mustOpen(t, site, c.index)
	filters, err := netlink.FilterList(device, netlink.HANDLE_MIN_INGRESS)
	must(t, err)
	names := map[string]int{}
	for _, f := range filters {
		names[f.(*netlink.BpfFilter).Name]++
	}
	if len(filters) != 3 || names["theirs"] != 1 || names["theirs too"] != 1 {
		t.Errorf("device has filters %v, want theirs, theirs too, and ours", names)
	}
	must(t, renewed.Attached(c.index))
}

func TestAForeignFilterInOurPlaceIsNotReplaced(t *testing.T) {
	enterNode(t)
	site := Site{ForceClsact: true}
	c := newContainer(t, 1)
	must(t, netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: c.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}))
	must(t, netlink.FilterAdd(clsactFilter(foreign(t, "theirs"), c.index, "theirs", filterPriority, filterHandle)))
	_, err := site.Open(c.index)
	wantError(t, err, ErrForeign)
	node := mustOpen(t, site, 0)
	wantError(t, node.Attached(c.index), ErrDetached)
}

// A program that is attached by a link of somebody else's cannot be mistaken
// for ours, and a device without any hook used is no error.
func TestQueriesOfBareDevices(t *testing.T) {
	enterNode(t)
	c := newContainer(t, 1)
	for hook, site := range sites {
		if ids, err := site.attachedIDs(c.index, fromEndpoint); err != nil || len(ids) != 0 {
			t.Errorf("%s: programs %v (%v), want none", hook, ids, err)
		}
	}
	requireTCX(t)
	node := mustOpen(t, Site{}, 0)
	l, err := link.AttachTCX(link.TCXOptions{Interface: c.index, Program: foreign(t, bpf.ZiplineProgFromEndpoint), Attach: ebpf.AttachTCXIngress})
	must(t, err)
	defer func() { _ = l.Close() }()
	wantError(t, node.Attached(c.index), ErrDetached)
}

// A filter of classic BPF is none of the programs that there are.
func TestClassicFiltersAreNoPrograms(t *testing.T) {
	enterNode(t)
	index := addDevice(t, 1)
	device, err := netlink.LinkByIndex(index)
	must(t, err)
	name := device.Attrs().Name
	for _, args := range [][]string{
		{"qdisc", "add", "dev", name, "clsact"},
		{"filter", "add", "dev", name, "ingress", "bpf", "bytecode", "1,6 0 0 1", "flowid", "1:1"},
	} {
		if out, err := exec.Command("tc", args...).CombinedOutput(); err != nil {
			t.Fatalf("tc %v: %v\n%s", args, err, out)
		}
	}
	found, err := AttachedPrograms([]int{index})
	if err != nil || len(found[index]) != 0 {
		t.Errorf("found %+v (%v), want none", found[index], err)
	}
}
