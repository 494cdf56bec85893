// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/bpf"
)

// hooksOf lists the programs of a device, as program/hook.
func hooksOf(tb testing.TB, s Site, index int) map[string]uint32 {
	tb.Helper()
	all, err := s.placements()
	must(tb, err)
	found := map[string]uint32{}
	for _, p := range all {
		if p.Index == index {
			found[p.Program+"/"+p.Hook] = p.ID
		}
	}
	return found
}

func wantSteps(tb testing.TB, what string, steps []Step, err error, want int) {
	tb.Helper()
	if err != nil || len(steps) != want {
		tb.Fatalf("%s: %d steps (%v), want %d: %+v", what, len(steps), err, want, steps)
	}
}

func TestStepsAreDoneOnce(t *testing.T) {
	for hook, site := range sites {
		t.Run(hook, func(t *testing.T) {
			enterNode(t)
			c := newContainer(t, 1, "10.1.0.1/24")
			if HaveTCX() != nil {
				hook = HookClsact // for want of it
			}
			tracks := 1
			steps, err := site.Load()
			wantSteps(t, "load", steps, err, 3) // three pins
			steps, err = site.Load()
			wantSteps(t, "load again", steps, err, 0)
			if mustFind(t, 0).TracksFlows() {
				tracks = 2
			}
			steps, err = site.AttachDevice(c.index)
			wantSteps(t, "attach", steps, err, tracks)
			steps, err = site.AttachDevice(c.index)
			wantSteps(t, "attach again", steps, err, 0)
			if held := hooksOf(t, site, c.index); held[bpf.ZiplineProgFromEndpoint+"/"+hook] == 0 || len(held) != tracks {
				t.Errorf("device has %v", held)
			}
			steps, err = site.DetachDevice(c.index)
			wantSteps(t, "detach", steps, err, tracks)
			steps, err = site.DetachDevice(c.index)
			wantSteps(t, "detach again", steps, err, 0)
			if held := hooksOf(t, site, c.index); len(held) != 0 {
				t.Errorf("device has %v, want nothing", held)
			}
		})
	}
}

func TestUnloadTakesEverythingOff(t *testing.T) {
	for hook, site := range sites {
		t.Run(hook, func(t *testing.T) {
			enterNode(t)
			c := newContainer(t, 1, "10.1.0.1/24")
			stray := newContainerInGroup(t, 2, 0)
			node := c.publish(t, site)
			must(t, node.attach(stray, endpointPlaces(true)))
			pins, record := node.pinDir(), recordPath(node.dir)

			_, err := site.Unload(false)
			var inUse *InUseError
			if !errors.As(err, &inUse) || inUse.Endpoints != 1 || !errors.Is(err, ErrInUse) {
				t.Fatalf("unload with an endpoint: %v, want an InUseError", err)
			}
			must(t, node.Attached(c.index))

			steps, err := site.Unload(true)
			must(t, err)
			for _, s := range steps {
				if s.ID != 0 || s.Old == 0 {
					t.Errorf("step %+v, want only removals", s)
				}
			}
			left, err := site.placements()
			if err != nil || len(left) != 0 {
				t.Errorf("%v left (%v), want nothing", left, err)
			}
			for _, path := range []string{pins, record} {
				if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left: %v", path, err)
				}
			}
			_, err = site.Find(c.index)
			wantError(t, err, ErrNotLoaded)
			steps, err = site.Unload(true)
			wantSteps(t, "unload again", steps, err, 0)
			mustOpen(t, site, c.index) // and it can be loaded again
		})
	}
}

func TestUpgradeReplacesWhatARecordDoesNotKnow(t *testing.T) {
	for hook, site := range sites {
		t.Run(hook, func(t *testing.T) {
			enterNode(t)
			_, err := site.Upgrade()
			wantError(t, err, ErrNotLoaded)
			a, b := newContainer(t, 1, "10.1.0.1/24"), newContainer(t, 2, "10.1.0.2/24")
			node := a.publish(t, site)
			b.publish(t, site)
			steps, err := site.Upgrade()
			wantSteps(t, "upgrade of what is current", steps, err, 0)
			// A device that somebody gave another version behind the record's back.
			other, _, err := load(node.set)
			must(t, err)
			must(t, site.attach(other, b.index, fromEndpoint))
			steps, err = site.Upgrade()
			wantSteps(t, "upgrade of a stray", steps, err, 1)
			if s := steps[0]; s.Old != other.info.id || s.ID != node.info.id || s.Index != b.index {
				t.Errorf("step %+v, want %d replaced by %d on %d", s, other.info.id, node.info.id, b.index)
			}
			other.close()
			outdate(t, node)
			steps, err = site.Upgrade()
			must(t, err)
			for _, s := range steps {
				if s.Old == 0 || s.ID == 0 {
					t.Errorf("step %+v, want only replacements", s)
				}
			}
			must(t, mustFind(t, 0).Attached(a.index))
			must(t, mustFind(t, 0).Attached(b.index))
			must(t, echo(a, b, "tcp4", 1000))
		})
	}
}

func TestDetachWithdrawsAnUplink(t *testing.T) {
	enterNode(t)
	index := addDevice(t, 1)
	device, err := netlink.LinkByIndex(index)
	must(t, err)
	must(t, netlink.LinkSetGroup(device, 0))
	site := Site{}
	if !mustOpen(t, site, 0).TracksFlows() {
		_, err := site.AttachUplinkDevice(index, 0)
		wantError(t, err, ErrNotSupported)
		return
	}
	steps, err := site.AttachUplinkDevice(index, 1400)
	wantSteps(t, "attach uplink", steps, err, 2)
	must(t, mustFind(t, 0).UplinkAttached(index))
	steps, err = site.DetachDevice(index)
	wantSteps(t, "detach uplink", steps, err, 2)
	if left, err := mustFind(t, 0).Uplinks(); err != nil || len(left) != 0 {
		t.Errorf("uplinks %v (%v), want none", left, err)
	}
}

// A program of another version's layout is ours to take off, and not to replace.
func TestAnotherLayoutIsUnloadedAndNotReplaced(t *testing.T) {
	enterNode(t)
	requireTCX(t)
	counters, err := ebpf.NewMap(&ebpf.MapSpec{Name: bpf.ZiplineMapCounters, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 16, MaxEntries: 3})
	must(t, err)
	t.Cleanup(func() { _ = counters.Close() })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: bpf.ZiplineProgFromEndpoint, Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.LoadMapPtr(asm.R1, counters.FD()), asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	must(t, err)
	t.Cleanup(func() { _ = program.Close() })
	c := newContainer(t, 1)
	attachForeign(t, program, c.index, link.Head())
	stranger := foreign(t, bpf.ZiplineProgFromEndpoint)
	attachForeign(t, stranger, c.index, link.Tail())
	site := Site{}
	for what, steer := range map[string]func() ([]Step, error){
		"upgrade": site.Upgrade, "attach": func() ([]Step, error) { return site.AttachDevice(c.index) },
	} {
		if _, err := steer(); !errors.Is(err, ErrOtherLayout) {
			t.Errorf("%s: %v, want %v", what, err, ErrOtherLayout)
		}
	}
	// ADD and DEL go on beside it, with a set and pins of their own.
	old := pinRoot("/sys/fs/bpf", mustOpen(t, site, 0).name) + "/v0"
	must(t, os.Mkdir(old, 0o700))
	must(t, program.Pin(old+"/"+bpf.ZiplineProgFromEndpoint))
	other := newContainer(t, 2, "10.1.0.2/24")
	node := other.publish(t, site)
	must(t, mustFind(t, c.index).Delete(netip.MustParseAddr("10.1.0.9"), c.index))
	must(t, node.Attached(other.index))
	if ids, err := queryTCX(c.index, ebpf.AttachTCXIngress); err != nil || len(ids) != 2 {
		t.Errorf("programs %v (%v), want the old one and the stranger's", ids, err)
	}
	steps, err := site.Unload(true)
	wantSteps(t, "unload", steps, err, 1+len(endpointPlaces(node.TracksFlows()))+len(node.members()))
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old layout's pins are left: %v", err)
	}
	ids, err := queryTCX(c.index, ebpf.AttachTCXIngress)
	if err != nil || len(ids) != 1 || ids[0] != progID(t, stranger) {
		t.Errorf("programs %v (%v) are left, want only the stranger's", ids, err)
	}
}
