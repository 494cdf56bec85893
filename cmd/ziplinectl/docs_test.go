// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

func TestReferenceIsCurrent(t *testing.T) {
	code, text, errs := execute(t, "docs")
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d, stderr %q", code, errs)
	}
	committed, err := os.ReadFile(filepath.Join(testutil.RepoRoot(t), "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	if text != string(committed) {
		t.Error("docs/cli.md is not what the commands say: run 'make docs' and commit it")
	}
	for _, want := range []string{"## ziplinectl status", "| `findings[].mend` | string |", "--network strings", "CAP_NET_ADMIN"} {
		if !strings.Contains(text, want) {
			t.Errorf("the reference has no %q", want)
		}
	}
}

// fieldPath is lower camel case, in which an abbreviation is a word: containerId.
var fieldPath = regexp.MustCompile(`^(\[\]|[a-z]+([A-Z][a-z]+)*|\.)+$`)

func TestEveryFieldIsDocumented(t *testing.T) {
	for _, c := range documented(newRoot(&app{})) {
		for key, annotation := range c.Annotations {
			if !strings.HasPrefix(key, result) {
				continue
			}
			var fields []fieldDoc
			decode(t, annotation, &fields)
			seen := map[string]bool{}
			for _, f := range fields {
				if f.Meaning == "" || seen[f.Path] || strings.HasSuffix(f.Path, ".") || !fieldPath.MatchString(f.Path) {
					t.Errorf("%s: field %+v has no meaning, no name in lower camel case or a double", c.CommandPath(), f)
				}
				seen[f.Path] = true
			}
		}
	}
}

// TestFieldsAreThoseOfTheOutput compares the documented fields with JSON.
func TestFieldsAreThoseOfTheOutput(t *testing.T) {
	commands := map[string]any{
		"networks": exampleNetworks, "endpoints": exampleEndpoints, "leases": exampleLeases, "programs": examplePrograms,
		"maps": exampleMaps, "status": exampleStatus, "flows": []flowJSON{{Endpoints: []flowEndpointJSON{{}}}}, "monitor": eventJSON{},
	}
	for name, value := range commands {
		c, _, err := newRoot(&app{}).Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		var fields []fieldDoc
		decode(t, c.Annotations[result], &fields)
		var want []string
		for _, f := range fields {
			want = append(want, f.Path)
			if strings.HasPrefix(f.Type, amountType) {
				want = append(want, f.Path+".packets", f.Path+".bytes")
			}
		}
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		var generic any
		decode(t, string(text), &generic)
		var got []string
		collectPaths(generic, "", &got)
		slices.Sort(got)
		slices.Sort(want)
		if got = slices.Compact(got); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: JSON has %q, documented are %q", name, got, want)
		}
	}
}

// TestEveryCommandPrintsTheFieldsThatAreDocumented has every command print JSON on
// a node: all of it is in the reference, and of a list of lines each line.
func TestEveryCommandPrintsTheFieldsThatAreDocumented(t *testing.T) {
	s := newStage(t, testrig.Options{})
	a, gone := s.attach(config("pods", "direct", 62)), s.attach(config("pods", "direct", 62))
	marks := filepath.Join(testutil.RepoRoot(t), "loader/prog/testdata/marks.o")
	flow := startTalk(t, "tcp", &a.Namespace, s.Outside.ServeTCP(t, netip.AddrPortFrom(testrig.InternetIPv4, 7000)).Addr)
	defer flow.stop()
	left := map[string]bool{} // commands that have not printed yet
	for _, c := range documented(newRoot(&app{})) {
		left[strings.TrimPrefix(c.CommandPath(), "ziplinectl ")] = c.Annotations[result] != ""
	}
	left["monitor"] = false // see TestMonitor, which ends it
	check := func(line string) {
		t.Helper()
		args := strings.Fields(line)
		c, _, err := newRoot(&app{}).Find(args)
		if err != nil {
			t.Fatal(err)
		}
		left[strings.TrimPrefix(c.CommandPath(), "ziplinectl ")] = false
		fields := c.Annotations[result]
		if slices.Contains(args, "--count") {
			fields = c.Annotations[result+"--count"]
		}
		_, out, errs := s.run(append(args, "-o", "json")...)
		printed := ""
		for decoder := json.NewDecoder(strings.NewReader(out)); decoder.More(); {
			var generic any
			if err := decoder.Decode(&generic); err != nil {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
			var have []string
			collectPaths(generic, "", &have)
			for _, path := range have {
				printed = path
				amount := strings.TrimSuffix(strings.TrimSuffix(path, ".packets"), ".bytes")
				if !strings.Contains(fields, strconv.Quote(amount)) && !strings.Contains(fields, strconv.Quote(path)) {
					t.Errorf("%s prints %s, which is not documented", line, path)
				}
			}
		}
		if printed == "" {
			t.Errorf("%s printed %q, stderr %q", line, out, errs)
		}
	}
	for _, line := range []string{
		"doctor", "status", "networks", "endpoints", "leases", "programs", "maps", "flows", "trace --limit 5", "trace --count --duration 300ms",
		"prog attach " + marks + " --program mark_a --dev lo --ingress", "prog list", "prog show mark_a --log " + marks, "prog detach mark_a --dev lo",
		"detach " + a.device, "repair --dry-run", "attach " + a.device, "unload --force", "load",
	} {
		check(line)
	}
	s.Node.MustRun(t, "sh", "-c", "rm /run/zipline/*/programs")
	check("upgrade")
	gone.Kill(t)
	s.Node.MustRun(t, "sh", "-c", "while ip link show dev "+gone.device+" 2>/dev/null; do sleep 0.05; done")
	check("gc --dry-run")
	for name, is := range left {
		if is {
			t.Errorf("%s has printed nothing", name)
		}
	}
}

func collectPaths(v any, path string, paths *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			where := strings.TrimPrefix(path+"."+name, ".")
			*paths = append(*paths, where)
			collectPaths(inner, where, paths)
		}
	case []any:
		for _, inner := range v {
			collectPaths(inner, path+"[]", paths)
		}
	}
}

func TestCompletion(t *testing.T) {
	s := newStage(t, testrig.Options{})
	a := s.attach(config("pods", "kernel", 62))
	for line, want := range map[string][]string{
		"__complete endp":                     {"endpoints"},
		"__complete endpoints --network ":     {"pods"},
		"__complete endpoints --container ":   {a.ID},
		"__complete endpoints --address ":     {a.v4.String(), a.v6.String()},
		"__complete endpoints ":               {a.v4.String(), a.ID, a.v6.String(), a.device},
		"__complete leases --network ":        {"pods"},
		"__complete networks -o ":             formats,
		"__complete networks --output=":       formats,
		"__complete endpoints --network nope": {"pods"}, // the shell filters
		"__complete flows --endpoint ":        {a.v4.String(), a.ID, a.v6.String(), a.device},
		"__complete trace --endpoint ":        {a.v4.String(), a.ID, a.v6.String(), a.device},
		"__complete trace --network ":         {"pods"},
		"__complete trace --verdict ":         {"redirect", "drop", "next"},
		"__complete capture ":                 {a.v4.String(), a.ID, a.v6.String(), a.device},
		"__complete capture x ":               nil,
		"__complete detach ":                  {"lo", testrig.Uplink, a.device},
		"__complete prog list --dev ":         {"lo", testrig.Uplink, a.device},
	} {
		code, out, _ := s.run(strings.Split(line, " ")...)
		var got []string
		for _, l := range strings.Split(out, "\n") {
			if l != "" && !strings.HasPrefix(l, ":") {
				word, _, _ := strings.Cut(l, "\t")
				got = append(got, word)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if code != exitOK || !slices.Equal(got, want) {
			t.Errorf("%q: exit code %d, %q, want %q", line, code, got, want)
		}
	}
}

func TestCompletionScriptsAreTakenByTheirShells(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, script, errs := execute(t, "completion", shell)
		if code != exitOK || script == "" || errs != "" {
			t.Errorf("%s: exit code %d, stderr %q", shell, code, errs)
		}
		path, err := exec.LookPath(shell)
		if err != nil || shell == "powershell" {
			continue
		}
		cmd := exec.Command(path, "-n")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, out)
		}
	}
}
