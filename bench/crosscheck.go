// SPDX-License-Identifier: Apache-2.0

// This package's own generator is believed because others agree with it: this file
// has them measure the same path, in turn with it.

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bench/load"
)

// toolPort is where the servers of other tools listen.
const toolPort = 15201

// tool is another program that measures what one of our workloads does.
type tool struct {
	workload   Workload
	what, unit string
	ours       func(load.Measurement) float64
	program    string
	server     func(at netip.AddrPort) []string
	// client measures for toolDuration.
	client func(to netip.AddrPort) []string
	// theirs reads what the client has printed.
	theirs func(printed []byte) (float64, error)
}

var tools = []tool{
	{
		workload: TCPStream, what: "rate", unit: "bytes/s",
		ours:    func(m load.Measurement) float64 { return float64(m.Units) / m.Seconds },
		program: "iperf3",
		server: func(at netip.AddrPort) []string {
			return []string{"--server", "--one-off", "--bind", at.Addr().String(), "--port", port(at)}
		},
		client: func(to netip.AddrPort) []string {
			return []string{"--client", to.Addr().String(), "--port", port(to), "--time", "1", "--json"}
		},
		theirs: parseIperf3,
	},
	{
		// The median is what two tools agree on: the rate has in it how often others
		// have the CPU, and tools that are started anew get less of it than ours.
		// Sockperf's messages have at least 14 bytes, ours one: a packet is a packet.
		workload: TCPRR, what: "median latency", unit: "s",
		ours:    func(m load.Measurement) float64 { return m.Latency.P50 },
		program: "sockperf",
		server: func(at netip.AddrPort) []string {
			return []string{"server", "--tcp", "--uc-reuseaddr", "-i", at.Addr().String(), "-p", port(at)}
		},
		client: func(to netip.AddrPort) []string {
			return []string{"ping-pong", "--tcp", "--full-rtt", "-i", to.Addr().String(), "-p", port(to), "-t", "1"}
		},
		theirs: parseSockperf,
	},
}

func port(a netip.AddrPort) string { return strconv.Itoa(int(a.Port())) }

// crosscheck measures a lane by this package's generator and by other tools, in
// turn. A tool that is not there is noted in its place, as is a round that fails.
func (r *flowRun) crosscheck(ctx context.Context, l lane, rounds int) ([]Crosscheck, error) {
	// All run for equally long.
	defer func(d time.Duration) { r.opts.Duration = d }(r.opts.Duration)
	r.opts.Duration = toolDuration
	var all []Crosscheck
	for _, t := range tools {
		c := Crosscheck{What: fmt.Sprintf("%s, %s", t.workload, t.what), Tool: t.program, Unit: t.unit}
		program, err := exec.LookPath(t.program)
		if err != nil {
			c.Note = "not installed"
			all = append(all, c)
			continue
		}
		c.Tool = versionOf(program)
		for round := range rounds {
			if ctx.Err() != nil {
				return all, context.Cause(ctx)
			}
			r.progress(fmt.Sprintf("%s by us and by %s, %d of %d", t.workload, t.program, round+1, rounds))
			if err := r.inTurn(l, t, program, &c); err != nil {
				c.Note = err.Error()
				// One end of ours may wait for the other still.
				if err := r.startEnds(); err != nil {
					return all, err
				}
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// inTurn adds a round to a crosscheck.
func (r *flowRun) inTurn(l lane, t tool, program string, c *Crosscheck) error {
	var ours, theirs float64
	for _, measure := range shuffled(r.random,
		func() error {
			m, err := r.measure(l, t.workload, 1)
			ours = t.ours(m)
			return err
		},
		func() (err error) {
			theirs, err = r.theirs(l, t, program)
			return err
		},
	) {
		if err := measure(); err != nil {
			return err
		}
	}
	c.Ours, c.Theirs = append(c.Ours, ours), append(c.Theirs, theirs)
	return nil
}

// theirs runs the two ends of a tool where ours are.
func (r *flowRun) theirs(l lane, t tool, program string) (value float64, err error) {
	at := netip.AddrPortFrom(l.to, toolPort)
	stop, err := startServer(pathOf(l.server), r.serverCPU, program, t.server(at), at.Port())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	var printed bytes.Buffer
	err = load.InNamespace(pathOf(l.client), func() error {
		if err := load.Pin(r.clientCPU); err != nil {
			return err
		}
		cmd := exec.Command(program, t.client(at)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		cmd.Stdout, cmd.Stderr = &printed, &printed
		if err := cmd.Start(); err != nil {
			return err
		}
		defer time.AfterFunc(toolPatience, func() { _ = cmd.Process.Kill() }).Stop()
		return cmd.Wait()
	})
	if err != nil {
		return 0, fmt.Errorf("%s client: %w: %s", t.program, err, lastLine(&printed))
	}
	if value, err = t.theirs(printed.Bytes()); err != nil {
		return 0, fmt.Errorf("read what %s says: %w: %s", t.program, err, lastLine(&printed))
	}
	return value, nil
}

// toolDuration is the shortest time that these tools can measure for.
const toolDuration = time.Second

// toolPatience is how long a tool may take to begin, and to measure for a second.
const toolPatience = 10 * time.Second

// startServer starts a program in a namespace, waits until it listens, and returns
// what ends it. The thread that starts it waits for it, since the program dies with
// that thread: it is not to outlive this process.
func startServer(namespace string, cpu int, program string, args []string, port uint16) (stop func() error, err error) {
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var printed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &printed, &printed
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- load.InNamespace(namespace, func() error {
			err := load.Pin(cpu)
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				return err
			}
			close(started)
			_ = cmd.Wait() // it is killed, or ends with its client
			return nil
		})
	}()
	select {
	case err := <-ended:
		return nil, fmt.Errorf("start %s: %w", program, err)
	case <-started:
	}
	stop = func() error {
		_ = cmd.Process.Kill()
		return <-ended
	}
	for until := time.Now().Add(toolPatience); time.Now().Before(until); {
		// The process's own view of the network is its namespace's.
		table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", cmd.Process.Pid))
		if err == nil && listens(string(table), port) {
			return stop, nil
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("%s has ended: %w", program, errors.Join(err, errors.New(lastLine(&printed))))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil, errors.Join(fmt.Errorf("%s does not listen", program), stop())
}

// lastLine returns the last line of what a tool has printed, which says what was
// wrong.
func lastLine(printed *bytes.Buffer) string {
	text := strings.TrimSpace(printed.String())
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// listens says whether somebody listens at a port, by the text of /proc/net/tcp.
func listens(table string, port uint16) bool {
	const listening = "0A"
	return slices.ContainsFunc(strings.Split(table, "\n"), func(line string) bool {
		fields := strings.Fields(line)
		return len(fields) > 3 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) && fields[3] == listening
	})
}

// versionOf returns the first line that a program says of its version.
func versionOf(program string) string {
	out, _ := exec.Command(program, "--version").CombinedOutput() // some exit with 1
	first, _, _ := bufio.NewReader(bytes.NewReader(out)).ReadLine()
	return string(first)
}

// parseIperf3 returns the bytes per second that have arrived.
func parseIperf3(printed []byte) (float64, error) {
	var found struct {
		Error string `json:"error"`
		End   struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(printed, &found); err != nil {
		return 0, err
	}
	if found.Error != "" {
		return 0, errors.New(found.Error)
	}
	if found.End.Received.BitsPerSecond <= 0 {
		return 0, errors.New("no rate in it")
	}
	return found.End.Received.BitsPerSecond / 8, nil
}

var sockperfMedian = regexp.MustCompile(`Round trip is [^\x00]* percentile 50\.000 = +([0-9.]+)`)

// parseSockperf returns the median of the round trips in seconds; it prints
// microseconds, and halves of round trips if it is not told otherwise.
func parseSockperf(printed []byte) (float64, error) {
	match := sockperfMedian.FindSubmatch(printed)
	if match == nil {
		return 0, errors.New("no median of round trips in it")
	}
	median, err := strconv.ParseFloat(string(match[1]), 64)
	if err != nil {
		return 0, err
	}
	if median <= 0 {
		return 0, errors.New("nothing was measured")
	}
	return median / 1e6, nil
}
