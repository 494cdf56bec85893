// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/version"

	"github.com/zipline-cni/zipline/internal/testrig"
)

var update = flag.Bool("update", false, "write the golden files from what the reference plugin prints")

// resultConfigs are configurations whose results are compared to the letter.
var resultConfigs = map[string]network{
	"dual-stack": {keys: map[string]any{"dns": map[string]any{
		"nameservers": []string{"192.0.2.53"}, "domain": "example.net", "search": []string{"example.net"}, "options": []string{"ndots:2"},
	}}},
	"route-without-gateway": {v6: "-", keys: map[string]any{"isDefaultGateway": false, "isGateway": true}, ipam: map[string]any{
		"routes": []map[string]string{{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.77.0.1"}},
	}},
	"bare": {v6: "-", keys: map[string]any{"isDefaultGateway": false, "ipMasq": false}},
}

// resultVersions are the versions a configuration may say, and none.
func resultVersions() []string { return append([]string{""}, version.All.SupportedVersions()...) }

// TestResult holds the text that ADD prints against golden files, and those
// against the reference plugin. Where that has its bridge, zipline has the
// pattern of its devices' names: the chained firewall plugin writes rules for it.
func TestResult(t *testing.T) {
	for name, n := range resultConfigs {
		for _, cniVersion := range resultVersions() {
			golden := filepath.Join("testdata", "result", name+"-"+orDefault(cniVersion, "none")+".json")
			t.Run(name+" "+orDefault(cniVersion, "none"), func(t *testing.T) {
				t.Parallel()
				t.Run("reference", func(t *testing.T) {
					got := addText(t, bridge, n, cniVersion)
					if *update {
						if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
							t.Fatal(err)
						}
					}
					compareText(t, got, readGolden(t, golden))
				})
				t.Run("zipline", func(t *testing.T) {
					compareText(t, addText(t, directTier, n, cniVersion), readGolden(t, golden))
				})
			})
		}
	}
}

// addText returns what ADD prints, with names and MACs replaced.
func addText(t *testing.T, v variant, n network, cniVersion string) string {
	t.Helper()
	top := newTopology(t, v, testrig.Options{})
	config := mustEdit(n.config(v), func(conf map[string]any) {
		conf["cniVersion"] = cniVersion
		if cniVersion == "" {
			delete(conf, "cniVersion")
		}
	})
	c := top.container()
	reply := c.Invoke(t, "ADD", config)
	if err := reply.Err(); err != nil {
		t.Fatal(err)
	}
	return normalise(reply.Stdout)
}

var (
	macText     = regexp.MustCompile(`([0-9a-f]{2}:){5}[0-9a-f]{2}`)
	hostText    = regexp.MustCompile(`"(veth[0-9a-f]{8}|zl[0-9a-z]{13})"`)
	segmentText = regexp.MustCompile(`"(seg0|zl[0-9a-z]{4}\+)"`)
)

func normalise(text string) string {
	text = macText.ReplaceAllString(text, "MAC")
	return segmentText.ReplaceAllString(hostText.ReplaceAllString(text, `"HOST"`), `"SEGMENT"`)
}

func readGolden(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func compareText(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestVersion compares VERSION with the reference plugin to the letter.
func TestVersion(t *testing.T) {
	var texts []string
	for _, v := range []variant{bridge, directTier} {
		top := newTopology(t, v, testrig.Options{})
		before := top.Node.Snapshot(t)
		reply := top.Node.Invoke(t, testrig.Invocation{Command: "VERSION", Plugin: v.plugin, Config: `{"cniVersion":"1.1.0"}`})
		if err := reply.Err(); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, reply.Stdout)
		top.wantUnchanged(t, before)
	}
	compareText(t, texts[1], texts[0])
}

func TestWithoutACommandThePluginSaysWhatItIs(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	reply := top.Node.Invoke(t, testrig.Invocation{Plugin: "zipline"})
	if reply.ExitCode != 0 || reply.Stdout != "" {
		t.Errorf("exit code %d, stdout %q; want 0 and nothing", reply.ExitCode, reply.Stdout)
	}
	for _, want := range []string{"zipline", "0.1.0", "1.1.0"} {
		if !strings.Contains(reply.Stderr, want) {
			t.Errorf("stderr %q does not say %q", reply.Stderr, want)
		}
	}
}
