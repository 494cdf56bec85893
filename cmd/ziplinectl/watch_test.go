// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// watchedNode is a private node with containers that the real plugin attached.
type watchedNode struct {
	*testrig.World
	pods []*watchedPod
}

type watchedPod struct {
	*testrig.Container
	v4, v6 netip.Addr
	device string // on the node
}

func newWatchedNode(tb testing.TB, forwarding string, pods int) *watchedNode {
	tb.Helper()
	testutil.RequireRoot(tb)
	plugin := filepath.Dir(reference.BuildZipline(tb))
	n := &watchedNode{World: testrig.New(tb, testrig.Options{PluginPath: []string{plugin}})}
	config := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","type":"zipline","bridge":"seg0","isDefaultGateway":true,
"ipMasq":true,"forwarding":%q,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.77.0.0/16"}],[{"subnet":"fd00:77::/64"}]]}}`, forwarding)
	for i := range pods {
		c := n.Node.NewContainer(tb, fmt.Sprintf("pod%d", i))
		reply := c.Invoke(tb, "ADD", config)
		if err := reply.Err(); err != nil {
			tb.Fatal(err)
		}
		var result types100.Result
		if err := json.Unmarshal([]byte(reply.Stdout), &result); err != nil {
			tb.Fatal(err)
		}
		addrs := testrig.Addresses(&result)
		n.pods = append(n.pods, &watchedPod{c, addrs[0], addrs[1], result.Interfaces[1].Name})
	}
	return n
}

// synced is a buffer that a command writes while a test reads.
type synced struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *synced) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *synced) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// running is a command that goes on until it is told to stop.
type running struct {
	out, err synced
	cancel   context.CancelFunc
	done     chan error
}

// start runs a command line in the node.
func (n *watchedNode) start(tb testing.TB, args ...string) *running {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan error, 1)}
	tb.Cleanup(cancel)
	go func() {
		r.done <- n.Node.Do(func() error {
			root := newRoot(&app{streams: streams{out: &r.out, err: &r.err}})
			root.SetArgs(args)
			return root.ExecuteContext(ctx)
		})
	}()
	return r
}

// ready waits until the command says so on stderr.
func (r *running) ready(tb testing.TB, hint string) {
	tb.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(r.err.String(), hint); time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-r.done:
			tb.Fatalf("command ended: %v; stderr %q", err, r.err.String())
		default:
		}
		if time.Now().After(deadline) {
			tb.Fatalf("command does not get ready; stderr %q", r.err.String())
		}
	}
}

// stop ends the command as SIGINT does, and returns what it wrote.
func (r *running) stop(tb testing.TB) string {
	tb.Helper()
	r.cancel()
	return r.wait(tb)
}

// wait waits for the command's own end.
func (r *running) wait(tb testing.TB) string {
	tb.Helper()
	select {
	case err := <-r.done:
		if err != nil {
			tb.Fatalf("command: %v; stderr %q", err, r.err.String())
		}
	case <-time.After(30 * time.Second):
		tb.Fatal("command does not end")
	}
	return r.out.String()
}
