// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/loader"
)

// tracers is how many programs have a tracer to jump to.
func (n *watchedNode) tracers(t *testing.T) (count int) {
	t.Helper()
	err := n.Node.Do(func() error {
		sets, err := loader.Running(func(uint32) bool { return false })
		for _, s := range sets {
			for hook := range uint32(3) {
				var id ebpf.ProgramID
				if s.Tracers.Lookup(hook, &id) == nil {
					count++
				}
			}
			_ = s.Close()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// traceToKill starts a trace in a process of its own, and returns what kills it.
func (n *watchedNode) traceToKill(t *testing.T) (kill func()) {
	t.Helper()
	program := buildCtl(t)
	cmd := exec.Command(program, "trace")
	var errs synced
	cmd.Stdout, cmd.Stderr = &synced{}, &errs
	if err := n.Node.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(errs.String(), "watching"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("does not trace: %q", errs.String())
		}
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}
}

// TestTraceLeavesNothingBehind kills the tracing process in the middle of it.
func TestTraceLeavesNothingBehind(t *testing.T) {
	n := newWatchedNode(t, "direct", 2)
	if n.tracers(t) != 0 {
		t.Fatal("traced before anybody did")
	}
	kill := n.traceToKill(t)
	if have := n.tracers(t); have != 3 {
		t.Errorf("%d programs are traced", have)
	}
	second := n.start(t, "trace")
	if err := <-second.done; err == nil || !strings.Contains(err.Error(), "locked by another process") {
		t.Errorf("a second trace: %v", err)
	}
	kill()
	// The kernel empties the map in a work queue.
	for deadline := time.Now().Add(5 * time.Second); n.tracers(t) != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a killed trace goes on")
		}
	}
	n.echo(t, 1)
}

// TestTraceTakesThePlaceOfOneThatStayed has a process look at the map of tracers
// when a trace is killed: then the kernel does not empty it.
func TestTraceTakesThePlaceOfOneThatStayed(t *testing.T) {
	n := newWatchedNode(t, "direct", 2)
	kill := n.traceToKill(t)
	err := n.Node.Do(func() error {
		sets, err := loader.Running(func(uint32) bool { return false })
		for _, s := range sets {
			t.Cleanup(func() { _ = s.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	kill()
	time.Sleep(100 * time.Millisecond)
	if have := n.tracers(t); have != 3 {
		t.Fatalf("%d programs are traced: the kernel has emptied the map", have)
	}
	r := n.trace(t, "-o", "json", "--rate", "0")
	n.echo(t, 1)
	if len(traced(t, r.stop(t))) == 0 {
		t.Error("the events go to the trace that was killed")
	}
}
