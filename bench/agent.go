// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bench/load"
)

// AgentCommand is the first argument that makes a program which measures become
// an agent: it has to call [ServeAgent] then, and nothing else.
const AgentCommand = "agent"

// netnsDir is where the containers' namespaces are bound to names.
const netnsDir = "/run/netns"

// request is one line on an agent's stdin. Exactly one field is set.
type request struct {
	// Containers asks for container namespaces up to this number.
	Containers int `json:",omitempty"`
	// Run asks for executions of a plugin.
	Run *runRequest `json:",omitempty"`
	// Traps asks to cover programs by traps; see [setTraps].
	Traps []string `json:",omitempty"`
	// Sprung asks which traps were sprung since they were set.
	Sprung bool `json:",omitempty"`
	// Listen asks for a listening socket, Serve for the end of the connections
	// that arrive at it, and Connect for their other end.
	Listen  *place      `json:",omitempty"`
	Serve   *load.End   `json:",omitempty"`
	Connect *connection `json:",omitempty"`
}

// runRequest says what to execute: every job, at most Width at a time.
type runRequest struct {
	Plugin Plugin
	Jobs   []job
	Width  int
}

// job is a verb for one of the agent's containers.
type job struct {
	Verb      string
	Container int
}

// reply answers one request.
type reply struct {
	Error string `json:",omitempty"`
	// Elapsed is the seconds from the first job's start to the last one's end.
	Elapsed float64 `json:",omitempty"`
	// Executions are in the order of the jobs.
	Executions []execution `json:",omitempty"`
	// FloorRSS is the agent's own peak memory in bytes: the kernel counts it
	// for its children too, so no execution shows less.
	FloorRSS int64 `json:",omitempty"`
	// Sprung are the command lines that met a trap.
	Sprung []string `json:",omitempty"`
	// Address is where Listen listens, or the peer that Serve saw.
	Address netip.AddrPort `json:",omitzero"`
	// Measurement of Serve and Connect.
	Measurement load.Measurement `json:",omitzero"`
}

// ServeAgent answers requests until its input ends, as it does when the measuring
// program dies. The caller's process is in the namespaces of a node already.
func ServeAgent(in io.Reader, out io.Writer) error {
	// A collection while a plugin runs would take one of its CPUs. Requests
	// leave little behind; it is collected between them.
	debug.SetGCPercent(-1)
	a := &agent{}
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var req request
		if err := decoder.Decode(&req); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		rep, err := a.serve(req)
		if err != nil {
			rep.Error = err.Error()
		}
		if err := encoder.Encode(rep); err != nil {
			return fmt.Errorf("write reply: %w", err)
		}
		runtime.GC()
	}
}

type agent struct {
	containers int
	listener   listener
}

func (a *agent) serve(req request) (reply, error) {
	switch {
	case req.Containers > 0:
		return reply{}, a.makeContainers(req.Containers)
	case req.Run != nil:
		return a.run(*req.Run)
	case req.Traps != nil:
		return reply{}, setTraps(req.Traps)
	case req.Sprung:
		sprung, err := sprungTraps()
		return reply{Sprung: sprung}, err
	case req.Listen != nil:
		return a.listen(*req.Listen)
	case req.Serve != nil:
		return a.serveLoad(*req.Serve)
	case req.Connect != nil:
		return connect(*req.Connect)
	default:
		return reply{}, errors.New("empty request")
	}
}

// makeContainers makes network namespaces until there are n, with lo up as
// runtimes leave it.
func (a *agent) makeContainers(n int) error {
	result := make(chan error)
	go func() {
		// Never unlocked: the thread dies with the goroutine, so that nothing
		// else runs in the last container.
		runtime.LockOSThread()
		for ; a.containers < n; a.containers++ {
			if err := makeContainer(containerPath(a.containers)); err != nil {
				result <- err
				return
			}
		}
		result <- nil
	}()
	return <-result
}

// makeContainer moves the calling thread to a new network namespace and binds
// that to path.
func makeContainer(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make container: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("make container: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return fmt.Errorf("make container: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("make container: bind namespace to %s: %w", path, err)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

func containerName(i int) string { return fmt.Sprintf("c%d", i) }

func containerPath(i int) string { return filepath.Join(netnsDir, containerName(i)) }
