// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

func TestLayoutIsThatOfTheObject(t *testing.T) {
	spec, err := bpf.LoadZipline()
	must(t, err)
	for name, want := range layout {
		m := spec.Maps[name]
		if m == nil {
			t.Errorf("object has no map %q", name)
			continue
		}
		if have := (shape{m.Type, m.KeySize, m.ValueSize, m.MaxEntries}); have != want {
			t.Errorf("map %q is %v in the object, the layout says %v", name, have, want)
		}
		delete(spec.Maps, name)
	}
	delete(spec.Maps, ".rodata")
	delete(spec.Maps, bpf.ZiplineMapTracers) // each load has its own
	delete(spec.Maps, bpf.ZiplineMapAnswers) // and of these
	delete(spec.Maps, ".bss")                // which are the turns of lib/turn.h
	for name := range spec.Maps {
		t.Errorf("the layout does not know map %q", name)
	}
}

func TestOpenLoadsOnceAndFindsItAgain(t *testing.T) {
	enterNode(t)
	first := mustOpen(t, Site{}, 0)
	second := mustOpen(t, Site{}, 0)
	found := mustFind(t, 0)
	for _, n := range []*Node{second, found} {
		if n.info.id != first.info.id || !n.sameMaps(first.set) {
			t.Errorf("opened program %d maps %v, want %d %v", n.info.id, n.mapIDs, first.info.id, first.mapIDs)
		}
		if lack := HaveConntrack(); n.TracksFlows() != (lack == nil) {
			t.Errorf("the program looks flows up in conntrack: %v; the kernel: %v", n.TracksFlows(), lack)
		}
	}
}

func TestFindLoadsNothing(t *testing.T) {
	enterNode(t)
	_, err := Find(0)
	wantError(t, err, ErrNotLoaded)
	_, err = Find(4711)
	wantError(t, err, ErrNotLoaded)
	if _, err := os.Stat("/sys/fs/bpf/zipline"); !os.IsNotExist(err) {
		t.Errorf("something is pinned: %v", err)
	}
}

func TestStateIsForRootAlone(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	for _, root := range []string{"/run/zipline", "/sys/fs/bpf/zipline"} {
		must(t, filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return err
		}))
	}
	if dir, err := NodeDir(); err != nil || dir != n.dir || filepath.Dir(dir) != "/run/zipline" {
		t.Errorf("node directory is %q (%v), want %q", dir, err, n.dir)
	}
}

func TestNodesShareNothing(t *testing.T) {
	enterNode(t)
	first := mustOpen(t, Site{}, 0)
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	second := mustOpen(t, Site{}, 0)
	if first.sameMaps(second.set) || first.name == second.name {
		t.Errorf("nodes %s and %s share maps %v", first.name, second.name, first.mapIDs)
	}
}

func TestBPFFSIsMountedWhereThereIsNone(t *testing.T) {
	enterNode(t)
	for isBPFFS("/sys/fs/bpf") { // the machine's is below the node's
		must(t, unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH))
	}
	mustOpen(t, Site{}, 0)
	if !isBPFFS("/sys/fs/bpf") {
		t.Error("/sys/fs/bpf is no bpffs")
	}
}

func TestBPFFSThatCannotBeIsNamed(t *testing.T) {
	enterNode(t)
	site := Site{BPFFS: "/run/missing/bpf"}
	_, err := site.Open(0)
	var bad *BPFFSError
	if !errors.As(err, &bad) || bad.Path != site.BPFFS || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v, want a BPFFSError for %s that does not exist", err, site.BPFFS)
	}
	if site.HaveBPFFS() == nil || site.Probe().Err() == nil || site.Probe().Tier() != TierKernel {
		t.Error("the probe finds nothing wrong")
	}
}

// Whatever pin is lost, the set is the same after.
func TestLostPinsAreMadeAgain(t *testing.T) {
	enterNode(t)
	first := mustOpen(t, Site{}, 0)
	var lost []string
	for _, m := range first.members() {
		lost = append(lost, pinPath(first.pinDir(), m.info.name))
	}
	for name := range layout {
		lost = append(lost, pinPath(first.pinDir(), name))
	}
	for _, path := range append(lost, first.pinDir(), pinRoot("/sys/fs/bpf", first.name)) {
		must(t, os.RemoveAll(path))
		again := mustOpen(t, Site{}, 0)
		if again.info.id != first.info.id || !again.sameMaps(first.set) {
			t.Errorf("without %s: program %d maps %v, want %d %v", path, again.info.id, again.mapIDs, first.info.id, first.mapIDs)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("not pinned again: %v", err)
		}
	}
}

// A pin of somebody else's map in the place of ours is not used.
func TestStrangePinsAreReplaced(t *testing.T) {
	enterNode(t)
	first := mustOpen(t, Site{}, 0)
	strange, err := ebpf.NewMap(&ebpf.MapSpec{Name: "endpoints", Type: ebpf.Hash, KeySize: 16, ValueSize: 32, MaxEntries: 65536})
	must(t, err)
	defer func() { _ = strange.Close() }()
	path := pinPath(first.pinDir(), bpf.ZiplineMapEndpoints)
	must(t, os.Remove(path))
	must(t, strange.Pin(path))
	again := mustOpen(t, Site{}, 0)
	if !again.sameMaps(first.set) || !again.pinned(again.pinDir()) {
		t.Errorf("opened maps %v, want %v, pinned", again.mapIDs, first.mapIDs)
	}
}

func TestALockThatIsHeldTooLongIsAnError(t *testing.T) {
	enterNode(t)
	n := mustOpen(t, Site{}, 0)
	held, err := lockFile(lockPath(n.dir), unix.LOCK_EX)
	must(t, err)
	heldMaps, err := lockFile(mapLockPath(n.dir), unix.LOCK_EX)
	must(t, err)
	defer shortenPatience()()
	_, err = Open(0)
	wantError(t, err, ErrBusy)
	wantError(t, n.Forget(1), ErrBusy)
	must(t, held.Close())
	must(t, heldMaps.Close())
	mustOpen(t, Site{}, 0)
	must(t, n.Forget(1))
}
