// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// A test run makes linear packets only. This one comes off a wire.
func TestHeadersThatAreNotLinearAreNotRewritten(t *testing.T) {
	w := newTrackingWorld(t)
	err := w.do(func() error { return attachIngress(t, w.objs.FromUplink, w.uplink.index) })
	if errors.Is(err, ebpf.ErrNotSupported) {
		testutil.RequireKernel(t, "tcx (6.6)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.attached = true
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := w.flows()["from outside to a container"].entry(protocol, v6)
		w.add(t, e)
		counted := func() uint64 {
			return packets(w.counters(t), HookUplink, ZiplineReasonREASON_NEXT_NONLINEAR)
		}
		before := counted()
		for deadline := time.Now().Add(10 * time.Second); counted() == before; {
			w.admit(t, e, original|replying)
			if err := w.do(func() error { return testrig.SendNonLinear("up0p", e.packet(w, original, false).bytes()) }); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(deadline) {
				t.Fatalf("a packet that is not linear is not counted as %q", ZiplineReasonREASON_NEXT_NONLINEAR)
			}
		}
	})
}

// attachIngress lets a program see what comes in by a device of the calling
// thread's namespace, until the test ends.
func attachIngress(t *testing.T, program *ebpf.Program, index int) error {
	l, err := link.AttachTCX(link.TCXOptions{Program: program, Interface: index, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		t.Cleanup(func() { _ = l.Close() })
	}
	return err
}
