// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// growWidth is how many ADDs run at a time where no clock does. More of iptables
// only made each other begin anew.
const growWidth = 4

// world is a node with an agent, and the plugin that attaches its containers.
// Containers 0 to present-1 are attached.
type world struct {
	plugin  Plugin
	present int
	made    int // containers whose namespace exists
	node    *testrig.Node
	*agentProcess
}

// newWorld makes a world that ends with tb.
func newWorld(tb testing.TB, plugin Plugin, bridgeNetfilter bool) *world {
	tb.Helper()
	rig := testrig.New(tb, testrig.Options{BridgeNetfilter: bridgeNetfilter})
	a, err := startAgent(tb, rig.Node.Do)
	if err != nil {
		tb.Fatal(err)
	}
	return &world{plugin: plugin, node: rig.Node, agentProcess: a}
}

// run executes jobs with the world's plugin, width at a time. Failures of the
// plugin are in the executions.
func (w *world) run(width int, jobs ...job) (reply, error) {
	return w.runAs(w.plugin, width, jobs...)
}

func (w *world) runAs(plugin Plugin, width int, jobs ...job) (reply, error) {
	for _, j := range jobs {
		if err := w.makeContainers(j.Container + 1); err != nil {
			return reply{}, err
		}
	}
	return w.call(request{Run: &runRequest{Plugin: plugin, Jobs: jobs, Width: width}})
}

// makeContainers makes sure that n containers exist, a good number at a time.
func (w *world) makeContainers(n int) error {
	if n <= w.made {
		return nil
	}
	_, err := w.call(request{Containers: n})
	if err == nil {
		w.made = n
	}
	return err
}

// resize attaches or detaches containers until n are present.
func (w *world) resize(n, width int) (reply, error) {
	if err := w.makeContainers(n); err != nil {
		return reply{}, err
	}
	verb, from, to := "ADD", w.present, n
	if n < w.present {
		verb, from, to = "DEL", n, w.present
	}
	var jobs []job
	for i := from; i < to; i++ {
		jobs = append(jobs, job{verb, i})
	}
	if len(jobs) == 0 {
		return reply{}, nil
	}
	rep, err := w.run(width, jobs...)
	w.present = n
	return rep, err
}

// mustResize is resize where every plugin has to succeed.
func (w *world) mustResize(n, width int) (reply, error) {
	rep, err := w.resize(n, width)
	if err == nil {
		err = firstFailure(rep)
	}
	return rep, err
}

// firstFailure returns an error for the first execution that failed, with the
// number of the others.
func firstFailure(rep reply) error {
	var first string
	failures := 0
	for _, e := range rep.Executions {
		if e.Failure == "" {
			continue
		}
		if failures++; first == "" {
			first = e.Failure
		}
	}
	if failures == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d executions: first: %s", failures, len(rep.Executions), first)
}
