// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// populateWidth is how many ADDs run at a time where no clock does.
const populateWidth = 4

// agentPatience is how long an agent may take to end after its input has.
const agentPatience = 5 * time.Second

// world is a node with an agent, and the plugin that attaches its containers.
// Containers 0 to present-1 are attached.
type world struct {
	plugin  Plugin
	present int
	made    int // containers whose namespace exists
	stdin   io.WriteCloser
	encoder *json.Encoder
	decoder *json.Decoder
}

// newWorld makes a world that ends with tb.
func newWorld(tb testing.TB, plugin Plugin, bridgeNetfilter bool) *world {
	tb.Helper()
	rig := testrig.New(tb, testrig.Options{BridgeNetfilter: bridgeNetfilter})
	w, err := startAgent(tb, rig.Node, plugin)
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// startAgent starts this program again inside the node. The agent ends with its
// stdin, also when this process is killed, so it needs no parent death signal;
// that would come with the death of the thread that started it.
func startAgent(tb testing.TB, node *testrig.Node, plugin Plugin) (*world, error) {
	cmd := exec.Command("/proc/self/exe", AgentCommand)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	if err := node.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	tb.Cleanup(func() {
		_ = stdin.Close()
		// An interrupted run leaves its agent in the middle of a request.
		defer time.AfterFunc(agentPatience, func() { _ = cmd.Process.Kill() }).Stop()
		if err := cmd.Wait(); err != nil && cmd.ProcessState.Exited() {
			tb.Error(fmt.Errorf("end agent: %w", err))
		}
	})
	return &world{
		plugin: plugin, stdin: stdin,
		encoder: json.NewEncoder(stdin), decoder: json.NewDecoder(stdout),
	}, nil
}

// call sends a request to the agent and waits for its reply.
func (w *world) call(req request) (reply, error) {
	var rep reply
	if err := w.encoder.Encode(req); err != nil {
		return rep, fmt.Errorf("ask agent: %w", err)
	}
	if err := w.decoder.Decode(&rep); err != nil {
		return rep, fmt.Errorf("hear agent: %w", err)
	}
	if rep.Error != "" {
		return rep, errors.New(rep.Error)
	}
	return rep, nil
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
