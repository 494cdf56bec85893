// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

func TestSteeringLosesNothing(t *testing.T) {
	w := newSteerWorld(t)
	config := steerConfig(nil)
	a := w.attach(config, true)
	b := w.attachBy(a.runtime)
	streams := map[string]*countedStream{
		"neighbours": newCountedStream(t, &a.Namespace, &b.Namespace, netip.AddrPortFrom(b.v4, 4000)),
		"IPv6":       newCountedStream(t, &b.Namespace, &a.Namespace, netip.AddrPortFrom(a.v6, 4001)),
		"outside":    newCountedStream(t, &a.Namespace, w.Outside, netip.AddrPortFrom(testrig.OutsideIPv4, 4002)),
	}
	time.Sleep(100 * time.Millisecond)
	steer := func(args ...string) (steps []stepJSON) {
		t.Helper()
		w.ctlJSON(&steps, args...)
		return steps
	}
	for range 2 {
		if steps := steer("detach", a.device); len(steps) == 0 {
			t.Error("detach did nothing")
		}
		if lines := w.Node.Programs(t, a.device); len(lines) != 0 {
			t.Errorf("after detach the kernel has %v", lines)
		}
		steer("detach", testrig.Uplink)
		steer("attach", a.device)
		steer("attach", testrig.Uplink, "--uplink")
		if steps := steer("attach", a.device); len(steps) != 0 {
			t.Errorf("attach again did %v", steps)
		}
		if len(w.Node.Programs(t, a.device)) == 0 || len(w.Node.Programs(t, testrig.Uplink)) == 0 {
			t.Error("attached, and the kernel has no programs")
		}
		steer("upgrade")
	}
	if _, err := w.ctl("unload"); err == nil || !strings.Contains(err.Error(), "2 endpoints") {
		t.Errorf("unload with endpoints: %v, want a refusal", err)
	}
	steer("unload", "--force")
	for _, device := range []string{a.device, b.device, testrig.Uplink} {
		if lines := w.Node.Programs(t, device); len(lines) != 0 {
			t.Errorf("after unload the kernel has %v on %s", lines, device)
		}
	}
	time.Sleep(100 * time.Millisecond)
	if _, err := w.ctl("attach", a.device); err == nil || !strings.Contains(err.Error(), "nothing is loaded") {
		t.Errorf("attach of what is not published: %v, want a refusal", err)
	}
	steer("load")
	if _, err := w.ctl("attach", a.device); err == nil || !strings.Contains(err.Error(), "not wholly published") {
		t.Errorf("attach of what is not published: %v, want a refusal", err)
	}
	if steps := steer("load"); len(steps) != 0 {
		t.Errorf("load again did %v", steps)
	}
	w.repaired(a.runtime.CacheDir())
	for _, device := range []string{a.device, b.device, testrig.Uplink} {
		if len(w.Node.Programs(t, device)) == 0 {
			t.Errorf("after repair the kernel has no programs on %s", device)
		}
	}
	time.Sleep(100 * time.Millisecond)
	for name, s := range streams {
		s.wantAll(t, name)
	}
}

func TestAttachRefusesForeignDevices(t *testing.T) {
	w := newSteerWorld(t)
	a := w.attach(steerConfig(nil), false)
	w.Node.MustRun(t, "ip", "link", "add", "foreign0", "type", "veth", "peer", "name", "foreign1")
	for _, c := range []struct{ line, want string }{
		{"attach foreign0", "link group"},
		{"attach foreign0 --uplink", "no default route"},
		{"attach " + a.device + " --uplink --force", "host veth"},
		{"attach lo --uplink --force", "Ethernet"},
		{"attach nosuch0", "nosuch0"},
		{"detach nosuch0", "nosuch0"},
	} {
		if out, err := w.ctl(strings.Fields(c.line)...); err == nil || out != "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v; want an error with %q", c.line, out, err, c.want)
		}
	}
	if out := w.mustCtl("attach", "foreign0", "--force"); !strings.Contains(out, "attached  foreign0  from_endpoint") {
		t.Errorf("attach --force prints %q", out)
	}
	if out := w.mustCtl("detach", "foreign0"); !strings.Contains(out, "detached  foreign0  from_endpoint") {
		t.Errorf("detach prints %q", out)
	}
}
