// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/loader"
)

// ipLink is what ip -j -s -d link show says of a device.
type ipLink struct {
	Name    string `json:"ifname"`
	Index   int    `json:"ifindex"`
	MTU     int    `json:"mtu"`
	State   string `json:"operstate"`
	MAC     string `json:"address"`
	NetnsID *int   `json:"link_netnsid"`
	Stats   struct {
		RX, TX struct {
			Packets uint64 `json:"packets"`
			Bytes   uint64 `json:"bytes"`
		}
	} `json:"stats64"`
}

func (s *stage) link(ns *testrig.Namespace, device string) ipLink {
	s.tb.Helper()
	var links []ipLink
	decode(s.tb, ns.MustRun(s.tb, "ip", "-j", "-s", "-d", "link", "show", "dev", device), &links)
	return links[0]
}

// attached asks the kernel for the ids of the programs on both TCX sides of a
// device, ingress first: bpftool and tc learned of TCX late.
func (s *stage) attached(index int) (ids []uint32) {
	s.tb.Helper()
	err := s.Node.Do(func() error {
		for _, side := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: side})
			if err != nil {
				return err
			}
			for _, p := range result.Programs {
				ids = append(ids, uint32(p.ID))
			}
		}
		return nil
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return ids
}

// bpftoolProgram is what bpftool -j prog show says.
type bpftoolProgram struct {
	ID     uint32   `json:"id"`
	Name   string   `json:"name"`
	Tag    string   `json:"tag"`
	Loaded int64    `json:"loaded_at"`
	JIT    uint32   `json:"bytes_jited"`
	Bytes  uint64   `json:"bytes_memlock"`
	Maps   []uint32 `json:"map_ids"`
	Runs   uint64   `json:"run_cnt"`
	TimeNs uint64   `json:"run_time_ns"`
}

func (s *stage) bpftool(id uint32) (p bpftoolProgram) {
	s.tb.Helper()
	s.kernel(&p, "bpftool", "-j", "prog", "show", "id", strconv.Itoa(int(id)))
	return p
}

func TestEndpointsAreWhatTheKernelHas(t *testing.T) {
	s := newStage(t, testrig.Options{})
	actors := map[string]*actor{}
	words := map[string]string{}
	for i, word := range []string{"direct", "tracked", "kernel"} {
		a := s.attach(config("net-"+word, word, 62+i))
		actors[a.ID], words[a.ID] = a, word
	}
	var endpoints []endpointJSON
	s.ask(&endpoints, "endpoints")
	if len(endpoints) != len(actors) {
		t.Fatalf("%d endpoints, want %d", len(endpoints), len(actors))
	}
	var routes []struct{ Dst, Dev string }
	s.kernel(&routes, "ip", "-j", "route", "show", "proto", "122")
	for _, e := range endpoints {
		a := actors[e.ContainerID]
		host, inside := s.link(&s.Node.Namespace, e.Device), s.link(&a.Namespace, "eth0")
		if e.Device != a.device || e.Index != host.Index || e.HostMAC != host.MAC || e.MTU != host.MTU || !e.Up || host.State != "UP" {
			t.Errorf("%+v; ip says %+v", e, host)
		}
		if e.MAC != inside.MAC || e.Netns.ID != *host.NetnsID || e.Netns.Path != a.Path || e.IfName != "eth0" {
			t.Errorf("%+v; ip says %+v in %s", e, inside, a.Path)
		}
		if want := []string{a.v4.String(), a.v6.String()}; !slices.Equal(e.Addresses, want) {
			t.Errorf("addresses %q, want %q", e.Addresses, want)
		}
		if !slices.Contains(routes, struct{ Dst, Dev string }{e.Addresses[0], e.Device}) {
			t.Errorf("ip has no route to %s by %s: %v", e.Addresses[0], e.Device, routes)
		}
		word := words[e.ContainerID]
		tier := map[string]string{"direct": "conntrack", "tracked": "conntrack", "kernel": "kernel"}[word]
		if e.Forwarding != word || e.Tier != tier || e.Network != "net-"+word || !e.SourceCheck || e.MACCheck || e.Problem != "" {
			t.Errorf("endpoint of %s: %+v", word, e)
		}
		testProgramsOf(t, s, &e, word != "kernel")
	}
}

func testProgramsOf(t *testing.T, s *stage, e *endpointJSON, accelerated bool) {
	t.Helper()
	var ids []uint32
	for _, p := range e.Programs {
		if !p.Ours || p.Hook != "tcx" || p.Name != s.bpftool(p.ID).Name {
			t.Errorf("%+v; bpftool says %+v", p, s.bpftool(p.ID))
		}
		ids = append(ids, p.ID)
	}
	if want := s.attached(e.Index); !slices.Equal(ids, want) || accelerated != (len(ids) > 0) {
		t.Errorf("programs of %s %v, the kernel says %v", e.Device, ids, want)
	}
}

func TestForeignAndMissingProgramsAreShown(t *testing.T) {
	s := newStage(t, testrig.Options{})
	a := s.attach(config("net", "direct", 62))
	var endpoints []endpointJSON
	s.ask(&endpoints, "endpoints")
	before := endpoints[0].Programs
	foreign, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreigner", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = foreign.Close() })
	own, err := ebpf.NewProgramFromID(ebpf.ProgramID(before[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	index := endpoints[0].Index
	err = s.Node.Do(func() error {
		return errors.Join(
			foreign.Pin("/sys/fs/bpf/foreigner"),
			link.RawAttachProgram(link.RawAttachProgramOptions{Target: index, Program: foreign, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()}),
			link.RawDetachProgram(link.RawDetachProgramOptions{Target: index, Program: own, Attach: ebpf.AttachTCXIngress}))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Node.MustRun(t, "tc", "qdisc", "add", "dev", a.device, "clsact")
	s.Node.MustRun(t, "tc", "filter", "add", "dev", a.device, "egress", "bpf", "da", "object-pinned", "/sys/fs/bpf/foreigner")
	s.ask(&endpoints, "endpoints")
	id := uint32(mustID(t, foreign))
	want := []attachedJSON{
		{"foreigner", id, "tcx", "ingress", false},
		before[1],
		{"foreigner", id, "clsact", "egress", false},
	}
	if e := endpoints[0]; !slices.Equal(e.Programs, want) || !strings.Contains(e.Problem, loader.ErrDetached.Error()) {
		t.Errorf("programs %+v, want %+v; problem %q", e.Programs, want, e.Problem)
	}
	if code, out, _ := s.run("endpoints"); code != exitOK || strings.Count(out, "wrong-programs") != 1 {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func mustID(t *testing.T, p *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

func TestPacketsByPath(t *testing.T) {
	s := newStage(t, testrig.Options{})
	for i, word := range []string{"direct", "kernel"} {
		conf := config("net-"+word, word, 62+i)
		a, b := s.attach(conf), s.attach(conf)
		server := b.ServeUDP(t, netip.AddrPortFrom(b.v4, 0))
		for range 20 {
			if _, err := a.EchoUDP(server.Addr, []byte("hello"), testrig.Socket{}); err != nil {
				t.Fatal(err)
			}
		}
		var endpoints []endpointJSON
		s.ask(&endpoints, "endpoints", "--container", a.ID, "--container", b.ID)
		for _, e := range endpoints {
			all, carried := e.Received.Packets, e.ReceivedByEBPF.Packets
			if all != carried+e.ReceivedByStack.Packets || e.Received.Bytes != e.ReceivedByEBPF.Bytes+e.ReceivedByStack.Bytes {
				t.Errorf("%s: %+v is not the sum of %+v and %+v", word, e.Received, e.ReceivedByStack, e.ReceivedByEBPF)
			}
			if carried >= 20 != (word == "direct") || carried > 0 != (word == "direct") || all < 20 || e.Sent.Packets < 20 {
				t.Errorf("%s: received %d, of them by eBPF %d, sent %d", word, all, carried, e.Sent.Packets)
			}
			if (e.SentPackets != nil) != (word == "direct") {
				t.Fatalf("%s: what was sent is %+v", word, e.SentPackets)
			}
			// What was sent before the programs came is not among them.
			if p := e.SentPackets; p != nil && (p.ByEBPF < 20 || p.Dropped != 0 || p.ByEBPF+p.ByStack > e.Sent.Packets) {
				t.Errorf("%s: sent %d packets, of them %+v", word, e.Sent.Packets, p)
			}
		}
	}
	// What the endpoints received past the stack is what the programs carried to
	// containers.
	var endpoints []endpointJSON
	s.ask(&endpoints, "endpoints")
	var received, sent uint64
	for _, e := range endpoints {
		received += e.ReceivedByEBPF.Packets
		if e.SentPackets != nil {
			sent += e.SentPackets.ByEBPF
		}
	}
	answered := s.carried(bpf.ZiplineReasonREASON_ARP_REPLY, bpf.ZiplineReasonREASON_ND_REPLY)
	if sent != received+answered {
		t.Errorf("endpoints sent %d packets by eBPF, received %d, and had %d answers", sent, received, answered)
	}
	var networks []networkJSON
	s.ask(&networks, "networks")
	if got := networks[0].ReceivedByEBPF.Packets + networks[1].ReceivedByEBPF.Packets; len(networks) != 2 || got != received {
		t.Errorf("networks received %d by eBPF, endpoints %d", got, received)
	}
	if carried := s.carried(bpf.ZiplineReasonREASON_DIRECT, bpf.ZiplineReasonREASON_TRACKED_LOCAL); carried != received {
		t.Errorf("endpoints received %d packets by eBPF, the programs carried %d", received, carried)
	}
}

// carried sums the counters of some reasons.
func (s *stage) carried(reasons ...bpf.Reason) (sum uint64) {
	s.tb.Helper()
	err := s.Node.Do(func() error {
		counters, err := loader.ReadCounters()
		for _, c := range counters {
			if slices.Contains(reasons, c.Reason) {
				sum += c.Packets
			}
		}
		return err
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return sum
}

func TestEndpointFilters(t *testing.T) {
	s := newStage(t, testrig.Options{})
	a, b := s.attach(config("red", "kernel", 62)), s.attach(config("blue", "kernel", 63))
	for _, c := range []struct {
		line string
		want string // container ids
	}{
		{"endpoints", b.ID + " " + a.ID}, // by network
		{"endpoints c1", a.ID},
		{"endpoints " + b.device, b.ID},
		{"endpoints " + a.v6.String(), a.ID},
		{"endpoints c1 " + b.device, b.ID + " " + a.ID},
		{"endpoints --network red", a.ID},
		{"endpoints --network red,blue", b.ID + " " + a.ID},
		{"endpoints --network red --container c2", ""},
		{"endpoints --address 10.63.0.0/24", b.ID},
		{"endpoints --address " + a.v4.String(), a.ID},
		{"endpoints --network nope", ""},
	} {
		var endpoints []endpointJSON
		s.ask(&endpoints, strings.Fields(c.line)...)
		var ids []string
		for _, e := range endpoints {
			ids = append(ids, e.ContainerID)
		}
		if got := strings.Join(ids, " "); got != c.want || endpoints == nil {
			t.Errorf("%s: %q, want %q", c.line, got, c.want)
		}
	}
	if code, out, errs := s.run("endpoints", "nope"); code != exitUsage || out != "" || !strings.Contains(errs, `no endpoint "nope"`) {
		t.Errorf("a name that none has: exit code %d, stdout %q, stderr %q", code, out, errs)
	}
	if code, _, errs := s.run("endpoints", "--address", "10.0.0.0/33"); code != exitUsage {
		t.Errorf("an address that is none: exit code %d, stderr %q", code, errs)
	}
}

func TestNetnsIsFoundByItsProcess(t *testing.T) {
	s := newStage(t, testrig.Options{})
	a := s.attach(config("net", "kernel", 62))
	a.RemovePath(t)
	var endpoints []endpointJSON
	s.ask(&endpoints, "endpoints")
	if n := endpoints[0].Netns; n.Path != "" || n.PID != 0 || n.ID < 0 {
		t.Errorf("netns %+v of a container without a path or a process", n)
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// Pdeathsig is of the thread that starts it, so all of it is done there.
	err := a.Do(func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		s.ask(&endpoints, "endpoints")
		if err := cmd.Process.Kill(); err != nil {
			return err
		}
		_ = cmd.Wait() // killed
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := endpoints[0].Netns; n.PID != cmd.Process.Pid || n.Inode == 0 || n.text() != "pid:"+strconv.Itoa(n.PID) {
		t.Errorf("netns %+v, want process %d", n, cmd.Process.Pid)
	}
}

func TestEndpointsOfADeadContainerAreNoError(t *testing.T) {
	s := newStage(t, testrig.Options{})
	s.attach(config("net", "direct", 62)).Kill(t)
	var endpoints []endpointJSON
	s.ask(&endpoints, "endpoints") // gone, or on its way
	code, _, errs := s.run("networks")
	if code != exitOK || errs != "" {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
}
