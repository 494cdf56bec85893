// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// The kernel that runs the tests has everything; each lack is tested below.
func TestProbeFindsTheBestTier(t *testing.T) {
	enterNode(t)
	r := Probe()
	testutil.RequireKernel(t, "conntrack functions", r.Conntrack)
	testutil.RequireKernel(t, "tcx", r.TCX)
	if r.Tier() != TierConntrack || r.Err() != nil || r.TCX != nil {
		t.Errorf("tier %q: %+v", r.Tier(), r)
	}
	entries, err := os.ReadDir("/sys/fs/bpf")
	must(t, err)
	for _, e := range entries {
		if e.IsDir() {
			t.Errorf("the probe left %s", e.Name())
		}
	}
}

func TestTiersFollowWhatIsMissing(t *testing.T) {
	lack := errors.New("missing")
	for _, c := range []struct {
		name   string
		report Report
		want   Tier
	}{
		{"nothing", Report{}, TierConntrack},
		{"tcx", Report{TCX: lack}, TierConntrack},
		{"conntrack", Report{Conntrack: lack}, TierDirect},
		{"redirect_peer", Report{RedirectPeer: lack}, TierKernel},
		{"bpffs", Report{BPFFS: lack}, TierKernel},
		{"eBPF", Report{Programs: lack}, TierKernel},
	} {
		if have := c.report.Tier(); have != c.want {
			t.Errorf("without %s the tier is %s, want %s", c.name, have, c.want)
		}
		if want := c.want == TierKernel; want != (c.report.Err() != nil) {
			t.Errorf("without %s the error is %v", c.name, c.report.Err())
		}
	}
}

// dropCapabilities makes the test's thread, which ends with the test, one
// without privileges.
func dropCapabilities(tb testing.TB) {
	tb.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	must(tb, unix.Capset(&header, &none[0]))
}

func TestWithoutTheRightsItSaysSo(t *testing.T) {
	enterNode(t)
	c := newContainer(t, 1)
	mustOpen(t, Site{}, 0)
	dropCapabilities(t)
	wantError(t, HavePrograms(), ErrNotPermitted)
	if r := Probe(); r.Tier() != TierKernel || !errors.Is(r.Err(), ErrNotPermitted) {
		t.Errorf("tier %q: %v", r.Tier(), r.Err())
	}
	_, _, err := load(nil)
	wantError(t, err, ErrNotPermitted)
	var le *LoadError
	if !errors.As(err, &le) {
		t.Errorf("load error is %T", err)
	}
	if _, err := Open(c.index); !errors.Is(err, unix.EPERM) {
		t.Errorf("attached without rights: %v", err)
	}
}

// The program is loaded without the lookup where the probe does not load; both
// forms pass this kernel's verifier.
func TestTheProgramLoadsWithoutConntrack(t *testing.T) {
	enterNode(t)
	spec, err := bpf.LoadZipline()
	must(t, err)
	must(t, spec.Variables[bpf.ZiplineVarHaveConntrack].Set(false))
	delete(spec.Programs, bpf.ZiplineProgProbeConntrack)
	breakConntrack(t, spec)
	coll, err := ebpf.NewCollection(spec)
	must(t, err)
	coll.Close()

	whole, err := bpf.LoadZipline()
	must(t, err)
	breakConntrack(t, whole)
	if err := haveConntrack(whole); err == nil {
		t.Error("the probe loads without the conntrack functions")
	}
}

// breakConntrack does to the calls of kernel functions what the loader of a
// kernel without them gets: a call of nothing.
func breakConntrack(tb testing.TB, spec *ebpf.CollectionSpec) {
	tb.Helper()
	broken := 0
	for _, prog := range spec.Programs {
		for i := range prog.Instructions {
			if ins := &prog.Instructions[i]; ins.IsKfuncCall() {
				*ins = asm.BuiltinFunc(0xdedc0de).Call().WithSymbol(ins.Symbol())
				broken++
			}
		}
	}
	if broken == 0 {
		tb.Fatal("no call of a kernel function found")
	}
}

// rejected returns what newLoadError makes of a program that the verifier
// rejects.
func rejected(tb testing.TB) error {
	tb.Helper()
	_, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.LoadMem(asm.R0, asm.R5, 0, asm.DWord), asm.Return()},
	})
	if err == nil {
		tb.Fatal("the verifier takes a read of nowhere")
	}
	return newLoadError(err)
}
