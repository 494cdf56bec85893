// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
	"github.com/zipline-cni/zipline/loader"
)

// flowsNode is a node whose containers the real plugin attaches.
type flowsNode struct {
	*testrig.World
	tb   testing.TB
	made int
}

// flowsPod is an attached container.
type flowsPod struct {
	*testrig.Container
	config string
	v4, v6 netip.Addr
	device string
}

func newFlowsNode(tb testing.TB) *flowsNode {
	tb.Helper()
	testutil.RequireRoot(tb)
	for _, program := range []string{"conntrack", "nft"} {
		testutil.RequireProgram(tb, program)
	}
	opts := testrig.Options{PluginPath: []string{filepath.Dir(reference.BuildZipline(tb))}}
	return &flowsNode{World: testrig.New(tb, opts), tb: tb}
}

// attach adds a container to a network of its own subnet; keys are added to the
// plugin's configuration.
func (n *flowsNode) attach(network string, subnet int, keys map[string]any) *flowsPod {
	n.tb.Helper()
	n.made++
	c := n.Node.NewContainer(n.tb, fmt.Sprintf("container-%d", n.made))
	conf := map[string]any{
		"cniVersion": "1.1.0", "name": network, "type": "zipline", "bridge": network, "isDefaultGateway": true, "ipMasq": true,
		"ipam": map[string]any{"type": "host-local", "ranges": [][]map[string]string{
			{{"subnet": fmt.Sprintf("10.%d.0.0/16", subnet)}}, {{"subnet": fmt.Sprintf("fd00:%d::/64", subnet)}},
		}},
	}
	maps.Copy(conf, keys)
	text, err := json.Marshal(conf)
	if err != nil {
		n.tb.Fatal(err)
	}
	reply := c.Invoke(n.tb, "ADD", string(text))
	if err := reply.Err(); err != nil {
		n.tb.Fatalf("add %s: %v\n%s", c.ID, err, reply.Stderr)
	}
	var result struct {
		Interfaces []struct{ Name, Sandbox string }
		IPs        []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal([]byte(reply.Stdout), &result); err != nil {
		n.tb.Fatal(err)
	}
	p := &flowsPod{Container: c, config: string(text), v4: result.IPs[0].Address.Addr(), v6: result.IPs[1].Address.Addr()}
	for _, link := range result.Interfaces {
		if link.Sandbox == "" {
			p.device = link.Name // the last: the first is the pattern for rules
		}
	}
	return p
}

// del ends the attachment.
func (n *flowsNode) del(p *flowsPod) {
	n.tb.Helper()
	if err := p.Invoke(n.tb, "DEL", p.config).Err(); err != nil {
		n.tb.Fatalf("del %s: %v", p.ID, err)
	}
}

// execute runs a command line inside the node.
func (n *flowsNode) execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return inNode(t, n.Node, args...)
}

// flows executes "flows -o json" with more arguments.
func (n *flowsNode) flows(t *testing.T, args ...string) []flowJSON {
	t.Helper()
	code, out, errs := n.execute(t, append([]string{"flows", "-o", "json"}, args...)...)
	if code != exitOK || errs != "" {
		t.Fatalf("flows %v: exit code %d\n%s", args, code, errs)
	}
	var flows []flowJSON
	if err := json.Unmarshal([]byte(out), &flows); err != nil || flows == nil {
		t.Fatalf("flows %v: %v\n%s", args, err, out)
	}
	return flows
}

type counterKey struct {
	hook   bpf.Hook
	reason bpf.Reason
}

// counters returns the packets of the node's programs, whatever their network.
func (n *flowsNode) counters(t *testing.T) map[counterKey]uint64 {
	t.Helper()
	packets := map[counterKey]uint64{}
	for _, c := range n.countersByNetwork(t) {
		packets[counterKey{c.Hook, c.Reason}] += c.Packets
	}
	return packets
}

func (n *flowsNode) countersByNetwork(t *testing.T) (counters []loader.Counter) {
	t.Helper()
	err := n.Node.Do(func() (err error) {
		counters, err = loader.ReadCounters()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return counters
}

// talk is traffic in both directions, a packet there and one back every few
// milliseconds, until it is stopped or its test ends: of all traffic the hardest to
// admit, since each answer in the stack takes away what the question had.
type talk struct {
	port   uint16 // that the flow was opened to
	source netip.AddrPort
	stop   func()
}

func startTalk(t *testing.T, network string, from *testrig.Namespace, to netip.AddrPort) *talk {
	t.Helper()
	conn, err := from.Dial(network, to, testrig.Socket{Timeout: time.Minute})
	if err != nil {
		t.Fatalf("talk %s to %s: %v", network, to, err)
	}
	done := make(chan struct{})
	var ends sync.WaitGroup
	ends.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_, _ = conn.Write([]byte("ping\n")) // the test looks at conntrack
			}
		}
	})
	ends.Go(func() {
		buffer := make([]byte, 4096)
		for {
			if _, err := conn.Read(buffer); err != nil {
				return
			}
		}
	})
	stop := sync.OnceFunc(func() {
		close(done)
		_ = conn.Close()
		ends.Wait()
	})
	t.Cleanup(stop)
	source, _ := netip.ParseAddrPort(conn.LocalAddr().(interface{ String() string }).String())
	return &talk{to.Port(), source, stop}
}

// dialHere connects from inside the node, whatever goroutine asks.
func (n *flowsNode) dialHere(_ context.Context, network, address string) (conn net.Conn, err error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return n.Node.Dial(network, to, testrig.Socket{})
}
