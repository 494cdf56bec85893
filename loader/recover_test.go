// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"maps"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// `ip netns exec` gives each call a new /sys, without a bpffs.
func TestMountNamespacesDoNotSplitANode(t *testing.T) {
	for hook, site := range sites {
		t.Run(hook, func(t *testing.T) {
			enterNode(t)
			a, b := newContainer(t, 1, "10.1.0.1/24"), newContainer(t, 2, "10.1.0.2/24")
			first := a.publish(t, site)
			enterMounts(t)
			second := b.publish(t, site)
			wantSame(t, second, first)
			must(t, second.Attached(b.index))
			if !isBPFFS("/sys/fs/bpf") || !second.pinned(second.pinDir()) {
				t.Error("nothing is pinned in the new mount namespace")
			}
			must(t, echo(a, b, "tcp4", 1000))

			enterMounts(t)
			found := mustFind(t, a.index)
			wantSame(t, found, first)
			if isBPFFS("/sys/fs/bpf") {
				t.Error("Find mounted a bpffs")
			}
		})
	}
}

// Between load and first attachment only the record leads to the program.
func TestALoadThatIsNotAttachedYetIsShared(t *testing.T) {
	enterNode(t)
	first := mustOpen(t, Site{}, 0)
	enterMounts(t)
	wantSame(t, mustFind(t, 0), first)
	wantSame(t, mustOpen(t, Site{}, 0), first)
}

// The record names a program by what the kernel says of it, or proves nothing.
func TestARecordIsNotBelieved(t *testing.T) {
	enterNode(t)
	c := newContainer(t, 1)
	first := mustOpen(t, Site{}, c.index)
	truth := *first.record
	for name, change := range map[string]func(*programID){
		"another id":        func(p *programID) { p.ID++ },
		"another tag":       func(p *programID) { p.Tag = "0123456789abcdef" },
		"another load time": func(p *programID) { p.LoadTime++ },
	} {
		lie := truth
		lie.Programs = maps.Clone(truth.Programs)
		p := lie.Programs[bpf.ZiplineProgToDevice]
		change(&p)
		lie.Programs[bpf.ZiplineProgToDevice] = p
		must(t, lie.write(first.dir))
		if setByRecord(&lie) != nil {
			t.Errorf("%s: the record is believed", name)
		}
		again := mustOpen(t, Site{}, 0)
		if !again.sameMaps(first.set) {
			t.Errorf("%s: opened maps %v, want %v", name, again.mapIDs, first.mapIDs)
		}
		must(t, again.Attached(c.index))
		truth = *again.record
	}
	for name, text := range map[string]string{"garbage": "zip", "nothing": "", "a later format": "zipline-programs-2 a 1 b 2 - -\n"} {
		must(t, os.WriteFile(recordPath(first.dir), []byte(text), 0o600))
		again := mustOpen(t, Site{}, 0)
		if !again.sameMaps(first.set) {
			t.Errorf("%s: opened maps %v, want %v", name, again.mapIDs, first.mapIDs)
		}
	}
}

// Two long-lived mount namespaces: the pins seen here are of a set that the
// devices no longer have.
func TestDevicesDecideAgainstPins(t *testing.T) {
	enterNode(t)
	old := mustOpen(t, Site{}, 0)
	must(t, os.Remove(recordPath(old.dir)))
	here, err := os.Open("/proc/thread-self/ns/mnt")
	must(t, err)
	defer func() { _ = here.Close() }()

	enterMounts(t)
	c := newContainer(t, 1, "10.1.0.1/24")
	theirs := c.publish(t, Site{})
	if theirs.sameMaps(old.set) {
		t.Fatal("the second set is the first: the test is about two")
	}

	must(t, unix.Setns(int(here.Fd()), unix.CLONE_NEWNS))
	wantSame(t, mustFind(t, 0), theirs)
	ours := mustOpen(t, Site{}, 0)
	wantSame(t, ours, theirs)
	if !ours.pinned(ours.pinDir()) {
		t.Error("the pins are still those of the old set")
	}
}

// Nothing we do makes two sets on the devices of a node; should something else
// have, the next long Open heals it and loses no entry.
func TestASplitNodeHeals(t *testing.T) {
	enterNode(t)
	a, b, c := newContainer(t, 1, "10.1.0.1/24"), newContainer(t, 2, "10.1.0.2/24"), newContainer(t, 3, "10.1.0.3/24")
	first := a.publish(t, Site{})
	must(t, os.Remove(recordPath(first.dir)))
	must(t, os.RemoveAll(first.pinDir()))
	hideDevice(t, a, true)
	second := b.publish(t, Site{})
	c.publish(t, Site{})
	if second.sameMaps(first.set) {
		t.Fatal("the second set is the first: the test is about two")
	}
	hideDevice(t, a, false)
	wantError(t, second.Attached(a.index), ErrOtherMaps)
	wantSame(t, mustFind(t, a.index), first) // DEL of a needs a's own maps

	must(t, os.Remove(recordPath(first.dir)))
	healed := mustOpen(t, Site{}, 0)
	if !healed.sameMaps(second.set) {
		t.Errorf("healed to maps %v, want those of most devices, %v", healed.mapIDs, second.mapIDs)
	}
	for _, con := range []*container{a, b, c} {
		must(t, healed.Attached(con.index))
		if _, err := healed.Lookup(con.prefixes[0].Addr()); err != nil {
			t.Error(err)
		}
	}
	must(t, echo(a, b, "tcp4", 1000))
}

func TestDevicesAreFoundByGroup(t *testing.T) {
	enterNode(t)
	want := map[int]bool{addDevice(t, 1): true, addDevice(t, 2): true}
	newContainerInGroup(t, 3, 0)
	want[newContainerInGroup(t, 4, groupUnchecked)] = true
	have, err := devices()
	must(t, err)
	for _, index := range have {
		if !want[index] {
			t.Errorf("found device %d, which is not ours", index)
		}
		delete(want, index)
	}
	if len(want) > 0 {
		t.Errorf("did not find devices %v", want)
	}
}

func TestNodeWithoutCookieHasAName(t *testing.T) {
	enterNode(t)
	name, err := inodeName("/proc/thread-self/ns/net")
	must(t, err)
	if len(name) < 4 || name[:3] != "ino" {
		t.Errorf("name is %q", name)
	}
	if _, err := inodeName("/proc/missing"); err == nil {
		t.Error("a missing namespace has a name")
	}
}

func TestKeysKeepFamiliesApart(t *testing.T) {
	for _, text := range []string{"10.1.0.1", "fd00::1", "::1", "255.255.255.255"} {
		addr := netip.MustParseAddr(text)
		k := key(addr)
		if have := addrOf(&k); have != addr {
			t.Errorf("%s comes back as %s", addr, have)
		}
	}
}

func wantSame(tb testing.TB, have, want *Node) {
	tb.Helper()
	if have.info.id != want.info.id || !have.sameMaps(want.set) {
		tb.Errorf("program %d maps %v, want %d %v", have.info.id, have.mapIDs, want.info.id, want.mapIDs)
	}
}

// Only its pin holds a program that is attached nowhere: from_uplink, where no
// uplink has it. What the devices have is known all the same.
func TestFindKnowsWhatIsAttachedWhenPinsAreLost(t *testing.T) {
	enterNodeWithUplinks(t)
	index := addDevice(t, 1)
	node := mustOpen(t, Site{}, index)
	dir := node.pinDir()
	must(t, node.Close())
	must(t, os.RemoveAll(dir))
	for deadline := time.Now().Add(testrig.Timeout); ; time.Sleep(10 * time.Millisecond) {
		fd, err := progByID(node.record.Programs[fromUplink.program].ID)
		if err != nil {
			break // the kernel has freed it
		}
		must(t, unix.Close(fd))
		if time.Now().After(deadline) {
			t.Fatal("from_uplink is held by something else")
		}
	}
	for _, by := range []int{0, index} {
		must(t, mustFind(t, by).Attached(index))
	}
}
