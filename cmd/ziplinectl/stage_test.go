// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// stage is a node whose containers the real plugin attaches.
type stage struct {
	*testrig.World
	tb   testing.TB
	made int
}

// actor is an attached container.
type actor struct {
	*testrig.Container
	config  string
	device  string // on the node
	mac     string // in the container
	hostMAC string
	v4, v6  netip.Addr
}

func newStage(tb testing.TB, opts testrig.Options) *stage {
	tb.Helper()
	testutil.RequireRoot(tb)
	for _, program := range []string{"ip", "nft", "bpftool", "ping"} {
		testutil.RequireProgram(tb, program)
	}
	opts.PluginPath = []string{filepath.Dir(reference.BuildZipline(tb)), reference.Plugins(tb)}
	return &stage{World: testrig.New(tb, opts), tb: tb}
}

// config is the configuration of a network with both families, whose number
// chooses its subnets.
func config(name, forwarding string, number int) string {
	conf := map[string]any{
		"cniVersion": "1.1.0", "name": name, "type": "zipline", "bridge": "seg-" + name, "forwarding": forwarding,
		"isDefaultGateway": true, "ipMasq": true,
		"ipam": map[string]any{"type": "host-local", "ranges": [][]map[string]string{
			{{"subnet": fmt.Sprintf("10.%d.0.0/24", number)}}, {{"subnet": fmt.Sprintf("fd00:%d::/64", number)}},
		}},
	}
	text, err := json.Marshal(conf)
	if err != nil {
		panic(err) // it is made of words and numbers
	}
	return string(text)
}

// attach makes a container and executes ADD, which has to succeed.
func (s *stage) attach(conf string) *actor {
	s.tb.Helper()
	s.made++
	c := s.Node.NewContainer(s.tb, fmt.Sprintf("c%d0123456789abcdef", s.made))
	reply := c.Invoke(s.tb, "ADD", conf)
	if err := reply.Err(); err != nil {
		s.tb.Fatalf("add %s: %v\n%s", c.ID, err, reply.Stderr)
	}
	var result types100.Result
	if err := json.Unmarshal([]byte(reply.Stdout), &result); err != nil {
		s.tb.Fatalf("parse result: %v\n%s", err, reply.Stdout)
	}
	a := &actor{Container: c, config: conf}
	for _, link := range result.Interfaces {
		if link.Sandbox == "" {
			a.device, a.hostMAC = link.Name, link.Mac
		} else {
			a.mac = link.Mac
		}
	}
	for _, ip := range result.IPs {
		addr, _ := netip.AddrFromSlice(ip.Address.IP)
		if addr = addr.Unmap(); addr.Is4() {
			a.v4 = addr
		} else {
			a.v6 = addr
		}
	}
	return a
}

// run executes ziplinectl in the node.
func (s *stage) run(args ...string) (code int, stdout, stderr string) {
	s.tb.Helper()
	return inNode(s.tb, s.Node, args...)
}

// ask executes ziplinectl -o json in the node, which has to succeed without a
// word on stderr, and decodes what it prints.
func (s *stage) ask(v any, args ...string) {
	s.tb.Helper()
	code, stdout, stderr := s.run(append(args, "-o", "json")...)
	if code != exitOK || stderr != "" {
		s.tb.Fatalf("ziplinectl %s: exit code %d, stderr %q", strings.Join(args, " "), code, stderr)
	}
	decode(s.tb, stdout, v)
}

// kernel decodes the JSON of a program that asks the kernel.
func (s *stage) kernel(v any, name string, args ...string) {
	s.tb.Helper()
	decode(s.tb, s.Node.MustRun(s.tb, name, args...), v)
}

func decode(tb testing.TB, text string, v any) {
	tb.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		tb.Fatalf("decode: %v\n%s", err, text)
	}
}
