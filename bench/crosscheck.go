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
	workload Workload
	program  string
	server   func(at netip.AddrPort) []string
	// client runs for a second, since these tools know nothing shorter.
	client func(to netip.AddrPort) []string
	// rate reads what the client has printed, in units of the workload per second.
	rate func(printed []byte) (float64, error)
}

var tools = []tool{
	{
		workload: TCPStream, program: "iperf3",
		server: func(at netip.AddrPort) []string {
			return []string{"--server", "--one-off", "--bind", at.Addr().String(), "--port", port(at)}
		},
		client: func(to netip.AddrPort) []string {
			return []string{"--client", to.Addr().String(), "--port", port(to), "--time", "1", "--json"}
		},
		rate: parseIperf3,
	},
	{
		// Its messages have at least 14 bytes, ours one: a packet is a packet.
		workload: TCPRR, program: "sockperf",
		server: func(at netip.AddrPort) []string {
			return []string{"server", "--tcp", "--uc-reuseaddr", "-i", at.Addr().String(), "-p", port(at)}
		},
		client: func(to netip.AddrPort) []string {
			return []string{"ping-pong", "--tcp", "-i", to.Addr().String(), "-p", port(to), "-t", "1"}
		},
		rate: parseSockperf,
	},
}

func port(a netip.AddrPort) string { return strconv.Itoa(int(a.Port())) }

// crosscheck measures a lane by this package's generator and by other tools, in
// turn. What goes wrong with a tool is noted in its place, as that it is not there.
func (r *flowRun) crosscheck(ctx context.Context, l lane, rounds int) ([]Crosscheck, error) {
	var all []Crosscheck
	for _, t := range tools {
		c := Crosscheck{What: string(t.workload), Tool: t.program, Unit: string(workloads[t.workload].unit) + "/s"}
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
				break
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
			ours = float64(m.Units) / m.Seconds
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
func (r *flowRun) theirs(l lane, t tool, program string) (rate float64, err error) {
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
		return 0, fmt.Errorf("%s client: %w: %s", t.program, err, printed.Bytes())
	}
	if rate, err = t.rate(printed.Bytes()); err != nil {
		return 0, fmt.Errorf("read what %s says: %w: %s", t.program, err, printed.Bytes())
	}
	return rate, nil
}

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
			return nil, fmt.Errorf("%s has ended: %w", program, errors.Join(err, errors.New(printed.String())))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil, errors.Join(fmt.Errorf("%s does not listen", program), stop())
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

var sockperfCounts = regexp.MustCompile(`\[Valid Duration\] RunTime=([0-9.]+) sec;.* ReceivedMessages=([0-9]+)`)

// parseSockperf returns the messages per second that have come back.
func parseSockperf(printed []byte) (float64, error) {
	match := sockperfCounts.FindSubmatch(printed)
	if match == nil {
		return 0, errors.New("no counts in it")
	}
	seconds, err := strconv.ParseFloat(string(match[1]), 64)
	if err != nil {
		return 0, err
	}
	messages, err := strconv.ParseFloat(string(match[2]), 64)
	if err != nil {
		return 0, err
	}
	if seconds <= 0 || messages == 0 {
		return 0, errors.New("nothing was measured")
	}
	return messages / seconds, nil
}
