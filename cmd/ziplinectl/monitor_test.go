// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// process is a ziplinectl that runs until it is told to stop.
type process struct {
	cmd    *exec.Cmd
	lines  chan string // of stdout
	errors chan string // of stderr
}

// start starts the real program in the node.
func (n *flowsNode) start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(buildCtl(t), args...), lines: make(chan string, 1000), errors: make(chan string, 100)}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Node.Do(p.cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	read := func(r io.Reader, lines chan<- string) {
		for scanner := bufio.NewScanner(r); scanner.Scan(); {
			lines <- scanner.Text()
		}
		close(lines)
	}
	go read(stdout, p.lines)
	go read(stderr, p.errors)
	return p
}

// next returns a line of stdout, or of stderr.
func next(t *testing.T, lines <-chan string) string {
	t.Helper()
	select {
	case line, ok := <-lines:
		if !ok {
			t.Fatal("the program has ended")
		}
		return line
	case <-time.After(10 * time.Second):
		t.Fatal("the program says nothing")
	}
	return ""
}

// interrupt ends the program as Ctrl-C does, which is no failure of it.
func (p *process) interrupt(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for range p.lines {
	}
	for range p.errors {
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("interrupted program: %v", err)
	}
}

// TestMonitor attaches and detaches a container before a monitor's eyes.
func TestMonitor(t *testing.T) {
	testutil.RequireRoot(t)
	n := newFlowsNode(t)
	old := n.attach("old", 76, nil) // there before: no event
	m := n.start(t, "monitor", "-o", "json")
	if hint := next(t, m.errors); !strings.Contains(hint, "listening") {
		t.Fatalf("stderr %q", hint)
	}
	seen, order := map[string]eventJSON{}, []string{}
	wantOrder := func(keys ...string) {
		t.Helper()
		at := -1
		for _, key := range keys {
			found := slices.Index(order, key)
			if found <= at {
				t.Errorf("%s is not after what it follows: %q", key, order)
			}
			at = found
		}
		order = nil
	}
	await := func(wanted ...string) {
		t.Helper()
		missing := map[string]bool{}
		for _, w := range wanted {
			missing[w] = true
		}
		for len(missing) > 0 {
			var e eventJSON
			line := next(t, m.lines)
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			if at, err := time.Parse(time.RFC3339Nano, e.Time); err != nil || !strings.HasSuffix(e.Time, "Z") || time.Since(at) > time.Minute {
				t.Errorf("time %q, %v", e.Time, err)
			}
			key := strings.TrimSpace(e.Event + " " + e.Address)
			if e.Event == "events lost" {
				t.Errorf("event %+v of a quiet node", e)
			}
			seen[key], order = e, append(order, key)
			delete(missing, key)
		}
	}
	p := n.attach("pods", 77, nil)
	v4, v6 := p.v4.String(), p.v6.String()
	await("attach", "link up", "lease made "+v4, "lease made "+v6, "address added 10.77.0.1", "route added "+v4, "route added "+v6,
		"route added 10.77.0.0/16", "route added fd00:77::/64", "neighbour set "+v4, "neighbour set "+v6)
	wantOrder("attach", "address added 10.77.0.1", "route added "+v4, "neighbour set "+v4)
	for key, want := range map[string]string{
		"attach": "pods container-2 eth0 " + p.device, "link up": "pods container-2 eth0 " + p.device,
		"route added " + v4: "pods container-2 eth0 " + p.device, "lease made " + v4: "pods container-2 eth0 ",
	} {
		e := seen[key]
		if got := strings.Join([]string{e.Network, e.ContainerID, e.IfName, e.Device}, " "); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	n.Node.MustRun(t, "ip", "link", "set", p.device, "down")
	await("link down", "route removed "+v4, "route removed "+v6)
	wantOrder("link down", "route removed "+v4, "route removed "+v6)
	n.Node.MustRun(t, "ip", "link", "set", p.device, "up")
	await("link up")
	n.Node.MustRun(t, "ip", "route", "add", v4, "dev", p.device, "proto", "122")
	await("route added " + v4)
	n.Node.MustRun(t, "ip", "link", "set", p.device, "mtu", "1400")
	await("link changed")
	// Somebody else's are not ours.
	n.Node.MustRun(t, "sh", "-c", "ip link add other type veth peer name rehto && ip link set other up && ip addr add 203.0.113.1/24 dev other && ip link del other")
	n.del(p)
	await("detach", "lease released "+v4, "lease released "+v6, "route removed "+v4)
	wantOrder("route removed "+v4, "detach")
	for key, e := range seen {
		if strings.Contains(key, "203.0.113") || e.Device == "other" || e.ContainerID == old.ID {
			t.Errorf("event %+v of somebody else's", e)
		}
	}
	m.interrupt(t)
	checkLines(t, n)
}

// checkLines looks at what is for people.
func checkLines(t *testing.T, n *flowsNode) {
	t.Helper()
	m := n.start(t, "monitor")
	next(t, m.errors)
	p := n.attach("pods", 77, nil)
	for {
		line := next(t, m.lines)
		words := strings.Fields(line)
		if _, err := time.Parse(time.RFC3339Nano, words[0]); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if words[1] == "attach" {
			if want := fmt.Sprintf("pods/%s/eth0 %s (mtu 1500)", p.ID, p.device); !strings.HasSuffix(line, want) {
				t.Errorf("line %q, want it to end in %q", line, want)
			}
			break
		}
	}
	m.interrupt(t)
}

// TestFlowsWatch has a list again and again until it is interrupted, as conntrack
// has it at that time.
func TestFlowsWatch(t *testing.T) {
	testutil.RequireRoot(t)
	n := newFlowsNode(t)
	a := n.attach("net", 77, nil)
	p := n.start(t, "flows", "--watch=200ms")
	heading := func() {
		t.Helper()
		if line := next(t, p.lines); !strings.HasPrefix(line, "PROTO") {
			t.Errorf("line %q, want the heading of a list without flows", line)
		}
	}
	heading()
	heading()
	flow := startTalk(t, "tcp", &a.Namespace, n.Outside.ServeTCP(t, netip.AddrPortFrom(testrig.InternetIPv4, 7000)).Addr)
	// await reads lists until one has, or has not, the flow.
	await := func(there bool) {
		t.Helper()
		for range 50 {
			line := next(t, p.lines)
			if strings.HasPrefix(line, "PROTO") {
				if line = next(t, p.lines); strings.HasPrefix(line, "PROTO") && !there {
					return
				}
			}
			if there && strings.Contains(line, "ESTABLISHED  "+flow.source.String()+" ") && strings.Contains(line, "SNAT to 192.0.2.1:") {
				return
			}
		}
		t.Errorf("the lists have the flow: %v, want %v", !there, there)
	}
	await(true)
	if entries := n.Node.Conntrack(t, a.v4.String()); len(entries) != 1 || !strings.Contains(entries[0], fmt.Sprintf("sport=%d ", flow.source.Port())) {
		t.Errorf("conntrack has %q", entries)
	}
	flow.stop()
	n.Node.MustRun(t, "conntrack", "-F")
	await(false)
	p.interrupt(t)
}
