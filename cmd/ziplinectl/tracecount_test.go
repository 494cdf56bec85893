// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/loader"
)

// counted is how many packets were carried directly, as the programs count.
func (n *watchedNode) counted(t *testing.T) (packets uint64) {
	t.Helper()
	err := n.Node.Do(func() error {
		counters, err := loader.ReadCounters()
		for _, c := range counters {
			if c.Hook == bpf.HookEndpoint && c.Reason == bpf.ZiplineReasonREASON_DIRECT {
				packets += c.Packets
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return packets
}

func TestTraceUsage(t *testing.T) {
	n := newWatchedNode(t, "direct", 1)
	for _, line := range []string{
		"--port 0", "--port 70000", "--address nowhere", "--protocol nope", "--verdict maybe", "--reason because",
		"--hook there", "--endpoint nobody", "--endpoint pod0 --network other", "--network other", "--verdict drop --reason direct", "--interval 1s", "--count --limit 3", "--duration -1s",
	} {
		code, _, errs := inNode(t, n.Node, append([]string{"trace"}, strings.Fields(line)...)...)
		if code != exitUsage || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit code %d, stderr %q", line, code, errs)
		}
	}
}

func TestTraceWithoutPrograms(t *testing.T) {
	n := newWatchedNode(t, "direct", 0)
	code, _, errs := inNode(t, n.Node, "trace")
	if code != exitFailure || !strings.Contains(errs, "not loaded on this node") {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
}
