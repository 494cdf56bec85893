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

// TestTraceLeavesNothingBehind kills the tracing process in the middle of it.
func TestTraceLeavesNothingBehind(t *testing.T) {
	n := newWatchedNode(t, "direct", 2)
	program := buildCtl(t)
	if n.tracers(t) != 0 {
		t.Fatal("traced before anybody did")
	}
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
	if have := n.tracers(t); have != 3 {
		t.Errorf("%d programs are traced", have)
	}
	second := n.start(t, "trace")
	if err := <-second.done; err == nil || !strings.Contains(err.Error(), "locked by another process") {
		t.Errorf("a second trace: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	// The kernel empties the map in a work queue.
	for deadline := time.Now().Add(5 * time.Second); n.tracers(t) != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a killed trace goes on")
		}
	}
	n.echo(t, 1)
}
