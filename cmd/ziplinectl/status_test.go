// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// status returns what status says, and its exit code.
func (s *stage) status() (v statusJSON, code int) {
	s.tb.Helper()
	code, stdout, stderr := s.run("status", "-o", "json")
	if stderr != "" {
		s.tb.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	decode(s.tb, stdout, &v)
	return v, code
}

func TestStatusOfAFreshNode(t *testing.T) {
	s := newStage(t, testrig.Options{})
	v, code := s.status()
	if code != exitOK || v.Loaded || v.Tier != "conntrack" || v.Ruleset.Present || len(v.Findings) > 0 || v.BPFFS != "/sys/fs/bpf" || v.Pins != "" {
		t.Errorf("exit code %d, %+v", code, v)
	}
}

func TestStatusCountsWhatThereIs(t *testing.T) {
	s := newStage(t, testrig.Options{UplinkMTU: 1400})
	a, b := s.attach(config("fast", "direct", 62)), s.attach(config("fast", "direct", 62))
	s.attach(config("careful", "tracked", 63))
	s.attach(config("plain", "kernel", 64))
	server := b.ServeUDP(t, netip.AddrPortFrom(b.v4, 0))
	if _, err := a.EchoUDP(server.Addr, []byte("hello"), testrig.Socket{}); err != nil {
		t.Fatal(err)
	}
	a.MustRun(t, "ip", "addr", "add", "10.62.0.77/32", "dev", "eth0")
	_, _ = a.PingWith(b.v4, testrig.PingOptions{Source: netip.MustParseAddr("10.62.0.77"), Negative: true}) // the source check drops it
	v, code := s.status()
	if code != exitOK || len(v.Findings) > 0 {
		t.Fatalf("exit code %d, findings %+v", code, v.Findings)
	}
	if !v.Loaded || v.Tier != "conntrack" || v.Hook != "tcx" || !strings.HasPrefix(v.Pins, "/sys/fs/bpf/zipline/") {
		t.Errorf("%+v", v)
	}
	if strings.Join(v.Networks, " ") != "careful fast plain" || v.Endpoints != (endpointsStatusJSON{4, 4, forwardingJSON{2, 1, 1}}) {
		t.Errorf("networks %q, endpoints %+v", v.Networks, v.Endpoints)
	}
	if len(v.Uplinks) != 1 || v.Uplinks[0].Device != testrig.Uplink || v.Uplinks[0].MTU != 1400 || !v.Uplinks[0].Up || v.Uplinks[0].Problem != "" {
		t.Errorf("uplinks %+v", v.Uplinks)
	}
	if v.Ruleset != (rulesetJSON{true, true}) || v.Packets.Redirect.Packets < 2 || v.Packets.Drop.Packets == 0 || v.Packets.Next.Packets == 0 {
		t.Errorf("ruleset %+v, packets %+v", v.Ruleset, v.Packets)
	}
	if len(v.Drops) != 1 || v.Drops[0].Reason != "drop-source" || v.Drops[0].Description == "" || v.Drops[0].trafficJSON != v.Packets.Drop {
		t.Errorf("drops %+v of %+v", v.Drops, v.Packets.Drop)
	}
}

func TestStatusFindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name    string
		damage  func(s *stage, a *actor)
		objects []string // of the findings; %d is the device
	}{
		{"a container's device is down", func(s *stage, a *actor) {
			a.MustRun(s.tb, "ip", "link", "set", "eth0", "down")
			// The kernel tells the other end in a work queue (linkwatch).
			deadline := time.Now().Add(testrig.Timeout)
			for s.link(&s.Node.Namespace, a.device).State == "UP" && time.Now().Before(deadline) {
				time.Sleep(10 * time.Millisecond)
			}
		}, []string{"device %d"}},
		{"forwarding of a device is off", func(s *stage, a *actor) {
			s.Node.SetSysctl(s.tb, "ipv4/conf/"+a.device+"/forwarding", "0")
		}, []string{"sysctl net/ipv4/conf/%d/forwarding"}},
		{"conntrack is strict", func(s *stage, _ *actor) {
			s.Node.SetSysctl(s.tb, "netfilter/nf_conntrack_tcp_be_liberal", "0")
		}, []string{"sysctl net/netfilter/nf_conntrack_tcp_be_liberal"}},
		{"the ruleset is gone", func(s *stage, _ *actor) {
			s.Node.MustRun(s.tb, "nft", "delete", "table", "inet", "zipline")
		}, []string{"table inet zipline"}},
		{"somebody added to the ruleset", func(s *stage, _ *actor) {
			s.Node.MustRun(s.tb, "nft", "add", "chain", "inet", "zipline", "mine")
		}, []string{"chain mine"}},
		{"a program is detached", func(s *stage, a *actor) {
			s.detach(a.device, ebpf.AttachTCXIngress)
		}, []string{"program on %d"}},
		{"an uplink's program is detached", func(s *stage, _ *actor) {
			s.detach(testrig.Uplink, ebpf.AttachTCXIngress)
		}, []string{"uplink uplink0"}},
		{"the uplink is gone", func(s *stage, _ *actor) {
			s.Node.MustRun(s.tb, "ip", "link", "del", testrig.Uplink)
		}, []string{"uplink 2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, testrig.Options{})
			a := s.attach(config("net", "direct", 62))
			if v, code := s.status(); code != exitOK {
				t.Fatalf("before: exit code %d, %+v", code, v.Findings)
			}
			c.damage(s, a)
			v, code := s.status()
			if code != exitFindings || len(v.Findings) != len(c.objects) {
				t.Fatalf("exit code %d, findings %+v", code, v.Findings)
			}
			for i, f := range v.Findings {
				if want := strings.ReplaceAll(c.objects[i], "%d", a.device); f.Object != want || f.Wrong == "" || f.Mend == "" {
					t.Errorf("finding %+v, want about %q", f, want)
				}
			}
			defer s.mendBy(v.Findings[0].Mend)
			if code, out, errs := s.run("status"); code != exitFindings || errs != "" || strings.Count(out, "finding ") != len(c.objects) {
				t.Errorf("exit code %d, stderr %q\n%s", code, errs, out)
			}
		})
	}
}

// mendBy does what a finding says where that is a command of ours: then all is well.
func (s *stage) mendBy(mend string) {
	s.tb.Helper()
	line, ours := strings.CutPrefix(mend, "ziplinectl ")
	if !ours {
		return
	}
	_, _, errs := s.run(strings.Fields(line)...)
	if v, code := s.status(); code != exitOK {
		s.tb.Errorf("after %q (stderr %q): %+v", mend, errs, v.Findings)
	}
}

// detach takes the first program off a side of a device.
func (s *stage) detach(device string, side ebpf.AttachType) {
	s.tb.Helper()
	index := s.link(&s.Node.Namespace, device).Index
	err := s.Node.Do(func() error {
		result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: side})
		if err != nil {
			return err
		}
		program, err := ebpf.NewProgramFromID(result.Programs[0].ID)
		if err != nil {
			return err
		}
		defer func() { _ = program.Close() }()
		return link.RawDetachProgram(link.RawDetachProgramOptions{Target: index, Program: program, Attach: side})
	})
	if err != nil {
		s.tb.Fatal(err)
	}
}

// Slots of networks are never taken back, and that they run out is no fault.
func TestStatusOfManyNetworks(t *testing.T) {
	s := newStage(t, testrig.Options{})
	for i := range bpf.NetworkSlots {
		s.attach(config(fmt.Sprintf("net%d", i), "direct", 62+i))
	}
	v, code := s.status()
	if code != exitOK || len(v.Findings) != 0 || len(v.Networks) != bpf.NetworkSlots || v.Maps[0].Name == "networks" {
		t.Errorf("exit code %d, findings %+v, networks %v, maps %+v", code, v.Findings, v.Networks, v.Maps)
	}
}

// TestStatusSaysWhatUnloadTookAway also looks at an endpoint that is to have no
// programs, which nothing was taken from, and at one that came after.
func TestStatusSaysWhatUnloadTookAway(t *testing.T) {
	w := newSteerWorld(t)
	a := w.attach(steerConfig(nil), true)
	uncached := w.attach(steerConfig(nil), false)
	plain := w.attach(steerConfig(map[string]any{"name": "plain", "forwarding": "kernel", "bridge": "seg1",
		"ipam": map[string]any{"type": "host-local", "subnet": "10.78.0.0/24"}}), true)
	status := func() (statusJSON, int) {
		var v statusJSON
		code, out, errs := inNode(t, w.Node, "status", "-o", "json", "--cache-dir", a.runtime.CacheDir(), "--cache-dir", plain.runtime.CacheDir())
		if errs != "" {
			t.Fatalf("exit code %d, stderr %q", code, errs)
		}
		decode(t, out, &v)
		return v, code
	}
	want := func(when string, devices ...string) {
		t.Helper()
		v, code := status()
		if len(devices) == 0 {
			if code != exitOK || len(v.Findings) != 0 {
				t.Errorf("%s: exit code %d, findings %+v", when, code, v.Findings)
			}
			return
		}
		if code != exitFindings || len(v.Findings) != 1 || v.Findings[0].Object != "programs" || v.Findings[0].Mend != "ziplinectl repair" {
			t.Fatalf("%s: exit code %d, findings %+v", when, code, v.Findings)
		}
		for _, device := range []string{a.device, uncached.device, plain.device} {
			if strings.Contains(v.Findings[0].Wrong, device) != slices.Contains(devices, device) {
				t.Errorf("%s: %q, want %v to be named", when, v.Findings[0].Wrong, devices)
			}
		}
	}
	want("before")
	w.mustCtl("unload", "--force")
	want("after unload", a.device, uncached.device)
	w.attachBy(a.runtime) // loads again, for itself
	want("after another ADD", a.device, uncached.device)
	w.repaired(a.runtime.CacheDir(), "--cache-dir", plain.runtime.CacheDir())
	want("after repair")
}

func TestStatusWithoutAVisibleBPFFS(t *testing.T) {
	s := newStage(t, testrig.Options{})
	s.attach(config("net", "direct", 62))
	s.Node.MustRun(t, "umount", "/sys/fs/bpf") // as ip netns exec has it
	v, code := s.status()
	if code != exitOK || !v.Loaded || v.BPFFS != "" || v.Pins != "" || v.Endpoints.Forwarding.Direct != 1 {
		t.Errorf("exit code %d, %+v", code, v)
	}
}

func TestStatusCountsWhatTheDeadLeave(t *testing.T) {
	s := newStage(t, testrig.Options{})
	s.attach(config("net", "direct", 62))
	s.Node.MustRun(t, "ip", "link", "del", s.attach(config("net", "direct", 62)).device)
	v, code := s.status()
	if code != exitOK || v.Leftovers != 2 || v.Endpoints.Total != 1 || len(v.Findings) > 0 {
		t.Errorf("exit code %d, %+v", code, v)
	}
}
