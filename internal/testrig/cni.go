// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// IfName is the name of a container's device where a test has no reason for
// another one.
const IfName = "eth0"

// Invocation is one execution of a CNI plugin in the node.
type Invocation struct {
	// Command is the verb: ADD, DEL, CHECK, GC, STATUS or VERSION.
	Command string
	// Plugin is the executable's name in CNI_PATH. Optional: default is the
	// "type" that Config has.
	Plugin string
	// Config is the text on stdin.
	Config string
	// ContainerID, Netns, IfName and Args are the CNI_ variables of those
	// names. An empty one is not set at all.
	ContainerID, Netns, IfName, Args string
	// Env is added to the environment, as name=value.
	Env []string
	// KillAfter is how long after its start the plugin is killed with SIGKILL.
	// Optional: 0 lets it run to its end.
	KillAfter time.Duration
}

// Reply is what an invocation gave.
type Reply struct {
	Stdout, Stderr string
	// ExitCode is -1 for a plugin that was killed.
	ExitCode int
	// Error is the error object on stdout of a plugin that exited with another
	// code than 0; nil if there was none or it was not JSON.
	Error *types.Error
	// Elapsed is the time from before the process's start to after its end.
	Elapsed time.Duration
	// MaxRSS is the greatest resident memory of the process, in bytes.
	MaxRSS int64
}

// Err returns nil for a plugin that succeeded; otherwise what it said.
func (r Reply) Err() error {
	switch {
	case r.ExitCode == 0:
		return nil
	case r.Error != nil:
		return r.Error
	default:
		return errors.New("plugin ended without an error object; stdout " + r.Stdout + "; stderr " + r.Stderr)
	}
}

// Invoke executes a plugin inside the node's namespaces, as a runtime on that
// node would.
func (n *Node) Invoke(tb testing.TB, inv Invocation) Reply {
	tb.Helper()
	program := n.findPlugin(tb, inv)
	cmd := exec.Command(program)
	cmd.Env = n.environment(inv)
	cmd.Stdin = strings.NewReader(inv.Config)
	return n.execute(tb, cmd, inv.KillAfter)
}

// Invoke executes a verb of the plugin that config names for this container.
func (c *Container) Invoke(tb testing.TB, command, config string) Reply {
	tb.Helper()
	return c.node.Invoke(tb, c.Invocation(command, config))
}

// Invocation returns what [Container.Invoke] executes, to be varied.
func (c *Container) Invocation(command, config string) Invocation {
	return Invocation{
		Command: command, Config: config,
		ContainerID: c.ID, Netns: c.Path, IfName: IfName,
	}
}

func (n *Node) findPlugin(tb testing.TB, inv Invocation) string {
	tb.Helper()
	name := inv.Plugin
	if name == "" {
		var conf struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal([]byte(inv.Config), &conf); err != nil {
			tb.Fatalf("find plugin: configuration has no type: %v", err)
		}
		name = conf.Type
	}
	for _, dir := range filepath.SplitList(n.pluginPath) {
		program := filepath.Join(dir, name)
		if _, err := os.Stat(program); err == nil {
			return program
		}
	}
	tb.Fatalf("find plugin %q in %s: no such program", name, n.pluginPath)
	return ""
}

// environment returns the variables that a plugin sees. Nothing of the test's
// own environment leaks into it but where a coverage build writes to.
func (n *Node) environment(inv Invocation) []string {
	env := []string{"PATH=" + os.Getenv("PATH")}
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		env = append(env, "GOCOVERDIR="+dir)
	}
	for _, v := range []struct{ name, value string }{
		{"CNI_COMMAND", inv.Command},
		{"CNI_CONTAINERID", inv.ContainerID},
		{"CNI_NETNS", inv.Netns},
		{"CNI_IFNAME", inv.IfName},
		{"CNI_ARGS", inv.Args},
		{"CNI_PATH", n.pluginPath},
	} {
		if v.value != "" {
			env = append(env, v.name+"="+v.value)
		}
	}
	return slices.Concat(env, inv.Env)
}

func (n *Node) execute(tb testing.TB, cmd *exec.Cmd, killAfter time.Duration) Reply {
	tb.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var reply Reply
	err := n.Do(func() error {
		start := time.Now()
		if err := cmd.Start(); err != nil {
			return err
		}
		if killAfter > 0 {
			defer time.AfterFunc(killAfter, func() { _ = cmd.Process.Kill() }).Stop()
		}
		err := cmd.Wait()
		reply.Elapsed = time.Since(start)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil
		}
		return err
	})
	if err != nil {
		tb.Fatalf("execute %s: %v", cmd.Path, err)
	}
	reply.Stdout, reply.Stderr = stdout.String(), stderr.String()
	reply.ExitCode = cmd.ProcessState.ExitCode()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		reply.MaxRSS = usage.Maxrss * 1024
	}
	var object types.Error
	if reply.ExitCode != 0 && json.Unmarshal(stdout.Bytes(), &object) == nil {
		reply.Error = &object
	}
	return reply
}
