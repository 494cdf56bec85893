// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// IfName is the name of every container's device.
const IfName = "eth0"

// Plugin is a CNI plugin to execute.
type Plugin struct {
	// Program is the executable's path.
	Program string
	// CNIPath is the value of CNI_PATH: where delegates are.
	CNIPath string
	// Path is the value of PATH.
	Path string
	// Config is the network configuration on stdin.
	Config string
}

// execution is what one process of a plugin cost.
type execution struct {
	// Seconds from before the fork to after the process's death.
	Seconds float64
	// CPU seconds of the process and of all its children.
	CPU float64
	// MaxRSS is the peak memory of the process or, where that is greater, of a
	// child or of the agent, in bytes.
	MaxRSS int64
	// PID of the process.
	PID int
	// Failure is empty for a plugin that exited with 0.
	Failure string `json:",omitempty"`
}

// run executes the jobs of a request.
func (a *agent) run(req runRequest) (reply, error) {
	rep := reply{Executions: make([]execution, len(req.Jobs))}
	errs := make([]error, len(req.Jobs))
	next := make(chan int, len(req.Jobs))
	for i := range req.Jobs {
		next <- i
	}
	close(next)
	var workers sync.WaitGroup
	start := time.Now()
	for range min(req.Width, len(req.Jobs)) {
		workers.Go(func() {
			for i := range next {
				rep.Executions[i], errs[i] = execute(req.Plugin, req.Jobs[i])
			}
		})
	}
	workers.Wait()
	rep.Elapsed = time.Since(start).Seconds()
	for _, err := range errs {
		if err != nil {
			return rep, err
		}
	}
	rep.FloorRSS = peakMemory()
	return rep, nil
}

// execute executes one verb. The error is one of the bench itself.
func execute(p Plugin, j job) (execution, error) {
	stdin, err := memoryFile("stdin", p.Config)
	if err != nil {
		return execution{}, err
	}
	defer func() { _ = stdin.Close() }()
	output, err := memoryFile("output", "")
	if err != nil {
		return execution{}, err
	}
	defer func() { _ = output.Close() }()
	attr := &os.ProcAttr{
		Files: []*os.File{stdin, output, output},
		Env: []string{
			"CNI_COMMAND=" + j.Verb, "CNI_CONTAINERID=" + containerName(j.Container),
			"CNI_NETNS=" + containerPath(j.Container), "CNI_IFNAME=" + IfName,
			"CNI_PATH=" + p.CNIPath, "PATH=" + p.Path,
		},
	}
	args := []string{p.Program}

	start := time.Now()
	process, err := os.StartProcess(p.Program, args, attr)
	if err != nil {
		return execution{}, fmt.Errorf("execute %s: %w", p.Program, err)
	}
	state, err := process.Wait()
	elapsed := time.Since(start)
	if err != nil {
		return execution{}, fmt.Errorf("wait for %s: %w", p.Program, err)
	}

	e := execution{
		Seconds: elapsed.Seconds(), PID: state.Pid(),
		CPU: (state.UserTime() + state.SystemTime()).Seconds(),
	}
	if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
		e.MaxRSS = usage.Maxrss << 10
	}
	if !state.Success() {
		e.Failure = fmt.Sprintf("%s %s: %s: %s", j.Verb, containerName(j.Container), state, contents(output))
	}
	return e, nil
}

// memoryFile returns a file without a name that holds text.
func memoryFile(name, text string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if text == "" {
		return file, nil
	}
	if _, err := file.WriteAt([]byte(text), 0); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("fill memory file: %w", err)
	}
	return file, nil
}

// contents returns what was written to a file, on one line.
func contents(file *os.File) string {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<16))
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// peakMemory returns the peak resident memory of this process in bytes, or 0 if
// the kernel does not say.
func peakMemory() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}
