// SPDX-License-Identifier: Apache-2.0

// The agent, seen from the process that measures.

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bench/load"
)

// agentPatience is how long an agent may take to end after its input has.
const agentPatience = 5 * time.Second

// agentProcess is a running agent.
type agentProcess struct {
	encoder *json.Encoder
	decoder *json.Decoder
}

// startAgent starts this program again where do calls what it is given, as
// [testrig.Namespace.Do] does in a namespace. The agent ends with its stdin, also
// when this process is killed, so it needs no parent death signal; that would come
// with the death of the thread that started it.
func startAgent(tb testing.TB, do func(func() error) error) (*agentProcess, error) {
	cmd := exec.Command("/proc/self/exe", AgentCommand)
	cmd.Env = append(os.Environ(), load.Env)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	if err := do(cmd.Start); err != nil {
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
	return &agentProcess{json.NewEncoder(stdin), json.NewDecoder(stdout)}, nil
}

// call sends a request to the agent and waits for its reply.
func (a *agentProcess) call(req request) (reply, error) {
	if err := a.ask(req); err != nil {
		return reply{}, err
	}
	return a.hear()
}

func (a *agentProcess) ask(req request) error {
	if err := a.encoder.Encode(req); err != nil {
		return fmt.Errorf("ask agent: %w", err)
	}
	return nil
}

// hear waits for the reply to a request that was asked.
func (a *agentProcess) hear() (reply, error) {
	var rep reply
	if err := a.decoder.Decode(&rep); err != nil {
		return rep, fmt.Errorf("hear agent: %w", err)
	}
	if rep.Error != "" {
		return rep, errors.New(rep.Error)
	}
	return rep, nil
}
