// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

func TestSteeringLosesNothing(t *testing.T) {
	w := newSteerWorld(t)
	config := steerConfig(nil)
	a := w.attach(config, true)
	b := w.attachBy(a.runtime)
	streams := map[string]*testutil.Stream{
		"neighbours": newStream(t, &a.Namespace, &b.Namespace, netip.AddrPortFrom(b.v4, 4000)),
		"IPv6":       newStream(t, &b.Namespace, &a.Namespace, netip.AddrPortFrom(a.v6, 4001)),
		"outside":    newStream(t, &a.Namespace, w.Outside, netip.AddrPortFrom(testrig.OutsideIPv4, 4002)),
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
		if steps := steer("upgrade"); len(steps) != 0 {
			t.Errorf("upgrade of what is current did %v", steps)
		}
		// Without a record nobody knows whether the programs are this binary's.
		w.Node.MustRun(t, "sh", "-c", "rm /run/zipline/*/programs")
		w.wantReplaced(steer("upgrade"), a.device, b.device, testrig.Uplink)
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
		s.WantAll(t, name)
	}
}

// wantReplaced checks that the programs of each device were replaced, and are those
// that the steps say.
func (w *steerWorld) wantReplaced(steps []stepJSON, devices ...string) {
	w.tb.Helper()
	s := &stage{World: w.World, tb: w.tb}
	for _, device := range devices {
		attached := s.attached(s.link(&w.Node.Namespace, device).Index)
		var replaced []uint32
		for _, step := range steps {
			if step.Device != device {
				continue
			}
			replaced = append(replaced, step.ProgramID)
			if step.Action != "replaced" || step.OldProgramID == 0 || step.OldProgramID == step.ProgramID || !slices.Contains(attached, step.ProgramID) {
				w.tb.Errorf("step %+v; attached are %v", step, attached)
			}
		}
		if len(replaced) != len(attached) {
			w.tb.Errorf("on %s %v were replaced, attached are %v", device, replaced, attached)
		}
	}
}

func TestAttachRefusesForeignDevices(t *testing.T) {
	w := newSteerWorld(t)
	a, routeless := w.attach(steerConfig(nil), false), w.attach(steerConfig(nil), false)
	for _, state := range []string{"down", "up"} { // its routes go with that
		w.Node.MustRun(t, "ip", "link", "set", routeless.device, state)
	}
	w.Node.MustRun(t, "ip", "link", "add", "foreign0", "type", "veth", "peer", "name", "foreign1")
	for _, c := range []struct{ line, want string }{
		{"attach foreign0", "link group"},
		{"attach " + routeless.device, "no route of zipline's"},
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

// TestNobodyIsToldWhatIsMissing runs every command as nobody: without capabilities,
// and with those that do without root's own files.
func TestNobodyIsToldWhatIsMissing(t *testing.T) {
	w := newSteerWorld(t)
	w.attach(steerConfig(nil), false)
	for _, dir := range []string{filepath.Dir(w.path), filepath.Dir(filepath.Dir(w.path))} {
		if err := os.Chmod(dir, 0o755); err != nil { // else it is the test's own
			t.Fatal(err)
		}
	}
	asNobody := func(capabilities []uintptr, line string) (code int, out string) {
		t.Helper()
		cmd := exec.Command(w.path, strings.Fields(line)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: capabilities}
		err := w.Node.Do(func() error {
			text, err := cmd.CombinedOutput()
			out = string(text)
			return err
		})
		if cmd.ProcessState == nil {
			t.Fatalf("ziplinectl %s: %v", line, err)
		}
		return cmd.ProcessState.ExitCode(), out
	}
	for _, line := range []string{
		"status", "networks", "endpoints", "leases", "programs", "maps", "load", "attach x", "detach x", "unload", "upgrade", "repair", "gc",
		"prog attach x --dev lo --ingress", "prog list", "prog detach x --dev lo", "prog show x", "flows", "monitor", "metrics", "trace", "capture x -w -",
	} {
		if code, out := asNobody(nil, line); code != exitPermission || !strings.Contains(out, "run it as root") || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q", line, code, out)
		}
	}
	if code, out := asNobody(nil, "doctor"); code != exitOK || !strings.Contains(out, "needs root") {
		t.Errorf("doctor: exit code %d, %q", code, out)
	}
	capabilities := []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN}
	if code, out := asNobody(capabilities, "status"); code != exitPermission || !strings.Contains(out, "needs CAP_DAC_OVERRIDE: run it as root") {
		t.Errorf("without the pins: exit code %d, %q", code, out)
	}
	if code, out := asNobody(append(capabilities, unix.CAP_DAC_OVERRIDE), "status"); code != exitOK {
		t.Errorf("with the pins: exit code %d, %q", code, out)
	}
}
