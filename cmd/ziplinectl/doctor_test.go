// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/datapath/doctor"
	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
)

const doctorNetwork = `{"cniVersion": "1.0.0", "name": "well", "type": "zipline", "isDefaultGateway": true, "ipMasq": true, "forwarding": "direct",
	"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/16"}], [{"subnet": "fd00:77::/64"}]]}}`

func writeConfig(t *testing.T, root, text string) {
	t.Helper()
	dir := filepath.Join(root, "etc/cni/net.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "10-well.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDoctorOnANodeThatIsWell attaches containers by the real plugin.
func TestDoctorOnANodeThatIsWell(t *testing.T) {
	w := testrig.New(t, testrig.Options{PluginPath: []string{filepath.Dir(reference.BuildZipline(t))}})
	for _, id := range []string{"one", "two"} {
		if err := w.Node.NewContainer(t, id).Invoke(t, "ADD", doctorNetwork).Err(); err != nil {
			t.Fatal(err)
		}
	}
	root := t.TempDir()
	writeConfig(t, root, doctorNetwork)
	code, out, errs := inNode(t, w.Node, "doctor", "--root", root, "-o", "json")
	if code != exitOK || errs != "" {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
	var report doctor.Report
	decoder := json.NewDecoder(strings.NewReader(out))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if report.Tier != "conntrack" || len(report.Forwarding) != 4 {
		t.Errorf("tier %q, forwarding %v", report.Tier, report.Forwarding)
	}
	seen := map[string]bool{}
	for _, f := range report.Findings {
		seen[f.Check] = true
		private := f.Check == "bpffs-lifetime" // the node of a test has one of its own
		if (f.Level == doctor.Warning || f.Level == doctor.Problem || f.Level == doctor.Skipped) && !private {
			t.Errorf("complains of a node that is well: %+v", f)
		}
	}
	for _, c := range doctor.Checks() {
		if !seen[c.ID] {
			t.Errorf("check %s has no finding", c.ID)
		}
	}
	w.Node.SetSysctl(t, "ipv4/ip_forward", "0")
	code, out, errs = inNode(t, w.Node, "doctor", "--root", root, "ipv4-forwarding", "mtu")
	if code != exitFindings || errs != "" || !strings.Contains(out, "problem  ipv4-forwarding") || !strings.Contains(out, "net.ipv4.ip_forward = 1") {
		t.Errorf("forwarding off: exit code %d, stderr %q, stdout:\n%s", code, errs, out)
	}
}

func TestDoctorReadsConfigurationsAsADDDoes(t *testing.T) {
	root := t.TempDir()
	writeConfig(t, root, strings.Replace(doctorNetwork, `"direct"`, `"fast"`, 1))
	code, out, _ := execute(t, "doctor", "--root", root, "cni-configuration")
	if code != exitFindings || !strings.Contains(out, `10-well.conf: unknown forwarding "fast"`) {
		t.Errorf("exit code %d, stdout:\n%s", code, out)
	}
	writeConfig(t, root, strings.Replace(doctorNetwork, "10.77.0.0/16", "10.77.0.0/31", 1))
	if code, out, _ := execute(t, "doctor", "--root", root, "cni-configuration"); code != exitFindings {
		t.Errorf("a pool without addresses: exit code %d, stdout:\n%s", code, out)
	}
	writeConfig(t, root, doctorNetwork)
	if code, out, _ := execute(t, "doctor", "--root", root, "cni-configuration"); code != exitOK || !strings.Contains(out, "10-well.conf: network well, forwarding direct") {
		t.Errorf("exit code %d, stdout:\n%s", code, out)
	}
}

func TestDoctorRefusesAnUnknownCheck(t *testing.T) {
	if code, out, errs := execute(t, "doctor", "no-such"); code != exitUsage || out != "" || !strings.Contains(errs, "no-such") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestDoctorForPeople(t *testing.T) {
	report := &doctor.Report{
		Tier: "direct", Forwarding: []doctor.Word{{Word: "auto", Gives: "everything by the stack"}, {Word: "direct", Gives: "neighbours by eBPF, all else by the stack"}},
		Findings: []doctor.Finding{
			{Check: "programs", Topic: "eBPF", Level: doctor.OK, Found: "the kernel loads tc programs"},
			{Check: "conntrack-functions", Topic: "eBPF", Level: doctor.Warning, Found: "not supported", Means: "no flow is carried", Advice: "use another kernel"},
			{Check: "tcx", Topic: "eBPF", Level: doctor.Skipped, Found: "could not look: needs root"},
			{Check: "mtu", Topic: "devices", Level: doctor.Info, Subject: "eth0", Found: "1400"},
			{Check: "tier", Topic: "outcome", Level: doctor.Problem, Subject: "net", Found: "asks for forwarding tracked", Means: "STATUS refuses"},
		},
	}
	a := &app{}
	got := a.consultation(report, false, false) + "--- quiet, some\n" + a.consultation(report, true, true)
	golden(t, "doctor", got)
	if strings.Contains(got, "\x1b") {
		t.Error("colours where nobody watches")
	}
	var out bytes.Buffer
	a = &app{streams: streams{out: &out, terminal: true}}
	if !strings.Contains(a.consultation(report, false, false), "\x1b[31mproblem") {
		t.Error("no colours on a terminal")
	}
}
