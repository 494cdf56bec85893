// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testutil"
)

func TestProgramsOfOthersStandAroundOurs(t *testing.T) {
	w := newSteerWorld(t)
	a, b := w.attach(steerConfig(nil), false), w.attach(steerConfig(nil), false)
	object := filepath.Join(testutil.RepoRoot(t), "loader/prog/testdata/marks.o")
	// order is what the kernel says, and prog list.
	order := func() []string {
		t.Helper()
		var names, want []string
		for _, line := range w.Node.Programs(t, a.device) {
			if name, ok := strings.CutPrefix(line, "ingress "); ok {
				want = append(want, name)
			}
		}
		var list []progJSON
		w.ctlJSON(&list, "prog", "list", "--dev", a.device)
		for _, p := range list {
			if p.Direction == "ingress" {
				names = append(names, p.Program)
			}
		}
		if !slices.Equal(names, want) {
			t.Errorf("prog list has %v, the kernel %v", names, want)
		}
		return names
	}
	var made progJSON
	w.ctlJSON(&made, "prog", "attach", object, "--program", "mark_a", "--dev", a.device, "--ingress", "--before", "from_endpoint", "--pin", "seen")
	w.mustCtl("prog", "attach", object, "--program", "mark_b", "--dev", a.device, "--ingress", "--after", "from_endpoint")
	w.mustCtl("prog", "attach", object, "--program", "mark_c", "--dev", a.device, "--ingress", "--before", "mark_b")
	all := []string{"mark_a", "from_endpoint", "mark_c", "mark_b"}
	if have := order(); !slices.Equal(have, all) {
		t.Errorf("programs in order %v, want %v", have, all)
	}
	if made.Pin != "/sys/fs/bpf/seen" || made.Position != 1 {
		t.Errorf("attached as %+v", made)
	}
	// The process that attached is gone; the programs are not, and count packets.
	ping := make(chan error, 1)
	go func() {
		var err error
		for range 5 {
			if err = a.Ping(b.v4); err != nil {
				break
			}
		}
		ping <- err
	}()
	var shown progShowJSON
	w.ctlJSON(&shown, "prog", "show", "mark_a", "--stats=2s", "--log", object)
	if err := <-ping; err != nil {
		t.Error(err)
	}
	if shown.Runs == 0 || len(shown.Instructions) == 0 || !strings.Contains(strings.Join(shown.VerifierLog, "\n"), "processed") {
		t.Errorf("show: %+v", shown)
	}
	if out := w.mustCtl("prog", "show", "from_endpoint"); !strings.Contains(out, "SchedCLS") {
		t.Errorf("show prints %q", out)
	}
	// What was counted stays when the statistics are off again.
	w.ctlJSON(&shown, "prog", "show", "mark_a")
	is := (&stage{World: w.World, tb: t}).bpftool(made.ProgramID)
	if shown.Runs == 0 || shown.Runs != is.Runs || shown.RunTimeNs != int64(is.TimeNs) {
		t.Errorf("%d runs in %d ns, bpftool says %d in %d", shown.Runs, shown.RunTimeNs, is.Runs, is.TimeNs)
	}
	if shown.ProgramID != made.ProgramID || shown.Tag != is.Tag || shown.JITBytes != is.JIT || !slices.Equal(shown.Maps, is.Maps) ||
		shown.AttachedTo[0] != made || shown.Statistics {
		t.Errorf("show: %+v, bpftool says %+v", shown, is)
	}
	w.mustCtl("upgrade") // ours keep their place beside others
	if have := order(); !slices.Equal(have, all) {
		t.Errorf("after upgrade there are %v, want %v", have, all)
	}
	// detach takes ours alone, and attach puts them after what is there.
	w.mustCtl("detach", a.device)
	if have := order(); !slices.Equal(have, []string{"mark_a", "mark_c", "mark_b"}) {
		t.Errorf("after detach there are %v, want those of others", have)
	}
	if out := w.mustCtl("detach", a.device, "-o", "json"); out != "[]" {
		t.Errorf("detach where only others' programs are printed %q", out)
	}
	w.mustCtl("attach", a.device)
	if have := order(); !slices.Equal(have, []string{"mark_a", "mark_c", "mark_b", "from_endpoint"}) {
		t.Errorf("programs in order %v, want ours last", have)
	}
	w.mustCtl("prog", "detach", "mark_c", "--dev", a.device)
	w.mustCtl("prog", "detach", "mark_a", "--dev", a.device)
	w.mustCtl("prog", "detach", "mark_b", "--dev", a.device)
	if have := order(); !slices.Equal(have, []string{"from_endpoint"}) {
		t.Errorf("programs in order %v, want ours alone", have)
	}
	for _, c := range []struct{ line, want string }{
		{"prog attach x.o --ingress", "--dev"},
		{"prog attach x.o --dev lo", "ingress"},
		{"prog attach x.o --dev lo --ingress --egress", "ingress"},
		{"prog detach mark_a --dev " + a.device, "not attached"},
		{"prog show 4294967295", "no program on this machine has the id 4294967295"},
		{"prog detach mark_a --dev nope", "there is no device nope in this network namespace"},
		{"prog attach " + object + " --program refused --ingress --dev " + a.device, "outside of the packet"},
	} {
		if out, err := w.ctl(strings.Fields(c.line)...); err == nil || out != "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v; want an error with %q", c.line, out, err, c.want)
		}
	}
}

func TestWhatThereIsNotIsAFailure(t *testing.T) {
	n := newFlowsNode(t)
	for line, want := range map[string]string{
		"prog show nope":       "ziplinectl: there is no such program: none that is loaded or pinned on this machine is called nope\n",
		"prog list --dev nope": "ziplinectl: there is no device nope in this network namespace\n",
	} {
		if code, out, errs := n.execute(t, strings.Fields(line)...); code != exitFailure || out != "" || errs != want {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", line, code, out, errs)
		}
	}
}

func TestProgUsage(t *testing.T) {
	for _, line := range []string{"prog attach", "prog attach x.o --dev lo", "prog attach x.o --dev lo --ingress --first --last", "prog detach x", "prog nope"} {
		if code, out, _ := execute(t, strings.Fields(line)...); code != exitUsage || out != "" {
			t.Errorf("%q: exit code %d, stdout %q", line, code, out)
		}
	}
}
