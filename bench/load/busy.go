// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is CPU time of a thread. The softirqs that its system calls end with
// are in it.
type threadTime struct {
	all time.Duration
	// user is what it spent outside the kernel, as far as the kernel knows: it
	// looks at every tick.
	user time.Duration
}

// readThread returns the CPU time of the calling thread.
func readThread() (threadTime, error) {
	var t unix.Timespec
	var usage unix.Rusage
	err := errors.Join(unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t), unix.Getrusage(unix.RUSAGE_THREAD, &usage))
	if err != nil {
		return threadTime{}, fmt.Errorf("read thread's CPU time: %w", err)
	}
	return threadTime{time.Duration(t.Nano()), time.Duration(usage.Utime.Nano())}, nil
}

// ticks is USER_HZ, which every architecture shows to programs as 100.
const ticks = 100

// stopwatch takes the time, and the time that the machine's CPUs were busy.
//
// A process's own CPU time would not do: what a packet costs in softirqs is
// charged to whoever happens to run. So it is the whole machine's time less the
// time that its CPUs had nothing to do. The kernel knows the latter exactly, while
// it only samples what a busy CPU is busy with.
type stopwatch struct {
	start time.Time
	idle  idleTime
}

// idleTime is what the CPUs did not use, in seconds.
type idleTime struct {
	seconds float64
	cpus    int
}

func newStopwatch() (stopwatch, error) {
	idle, err := readIdle()
	return stopwatch{time.Now(), idle}, err
}

// stop returns the seconds since the start, and the busy seconds of all CPUs.
func (s stopwatch) stop() (elapsed, busy float64, err error) {
	elapsed = time.Since(s.start).Seconds()
	idle, err := readIdle()
	return elapsed, busySeconds(elapsed, s.idle, idle), err
}

func busySeconds(elapsed float64, before, after idleTime) float64 {
	return max(elapsed*float64(after.cpus)-(after.seconds-before.seconds), 0)
}

func readIdle() (idleTime, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return idleTime{}, fmt.Errorf("read CPU times: %w", err)
	}
	idle, err := parseIdle(string(text))
	if err != nil {
		return idleTime{}, fmt.Errorf("read CPU times: %w", err)
	}
	return idle, nil
}

// parseIdle reads the text of /proc/stat: idle, waiting for I/O, and taken away by
// a hypervisor (proc_stat(5)).
func parseIdle(text string) (idleTime, error) {
	var idle idleTime
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 9 || !strings.HasPrefix(fields[0], "cpu") || fields[0] == "cpu" {
			continue
		}
		idle.cpus++
		for _, field := range []int{4, 5, 8} {
			n, err := strconv.ParseUint(fields[field], 10, 64)
			if err != nil {
				return idle, err
			}
			idle.seconds += float64(n) / ticks
		}
	}
	if idle.cpus == 0 {
		return idle, errors.New("no CPU in it")
	}
	return idle, nil
}
