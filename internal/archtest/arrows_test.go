// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testutil"
)

const module = "github.com/zipline-cni/zipline"

// arrows lists which packages of ours each package may import (docs/architecture.md).
// A package that is not listed may import nothing of ours.
var arrows = map[string][]string{
	"cmd/zipline": {"cni"},
	// cni only to check a configuration as ADD does, and to read what ADD was told.
	"cmd/ziplinectl": {"loader", "loader/prog", "loader/trace", "datapath", "ipam", "bpf", "cni", "datapath/capture",
		"datapath/conntrack", "datapath/doctor", "datapath/flow", "datapath/metrics", "datapath/watch"},
	"cmd/zipline-bench":  {"bench", "bench/report"},
	"cni":                {"ipam", "datapath"},
	"datapath":           {"loader", "bpf", "datapath/nat", "datapath/conntrack", "internal/nlink", "internal/rcu"},
	"datapath/nat":       {"internal/nfnl"},
	"datapath/conntrack": {"internal/nfnl"},
	"datapath/flow":      {"datapath", "datapath/conntrack", "loader", "bpf"},
	"datapath/watch":     {"datapath", "internal/nlink"},
	"datapath/metrics":   {"datapath", "loader"},
	"datapath/capture":   {"datapath/capture/filter"},
	"datapath/doctor":    {"datapath", "datapath/nat", "loader", "bpf", "internal/nlink", "internal/nfnl"},
	"internal/nlink":     {"internal/orphan"},
	"loader":             {"bpf", "internal/nlink", "internal/rcu"},
	"loader/prog":        {"internal/nlink"},
	"loader/trace":       {"loader", "bpf"},
	// The counters say who carried a measured packet, and no figure counts without.
	"bench":              {"bench/load", "internal/testrig", "internal/reference", "internal/tbrun", "loader", "bpf"},
	"bench/report":       {"bench"},
	"internal/demo":      {"internal/testrig", "internal/reference", "internal/tbrun", "internal/testutil", "loader", "bpf"},
	"internal/testrig":   {"internal/testutil"},
	"internal/reference": {"internal/testutil"},

	"internal/kernels":       {"internal/reference", "internal/tbrun", "internal/kernels/plan"},
	"internal/kernels/guest": {"loader", "bpf", "internal/kernels/plan"},
}

type goPackage struct {
	ImportPath string
	Doc        string
	Imports    []string
	GoFiles    []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,GoFiles", "./...")
	cmd.Dir = testutil.RepoRoot(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	var list []goPackage
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatalf("decode package list: %v", err)
		}
		list = append(list, p)
	}
}

func TestPackagesImportOnlyWhatTheDesignAllows(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		seen[name] = true
		for _, path := range p.Imports {
			imported, ours := strings.CutPrefix(path, module+"/")
			if ours && !slices.Contains(arrows[name], imported) {
				t.Errorf("%s imports %s, which its row of the table does not allow", name, imported)
			}
		}
		for _, allowed := range arrows[name] {
			if !slices.Contains(p.Imports, module+"/"+allowed) {
				t.Errorf("%s does not import %s, which its row of the table allows", name, allowed)
			}
		}
	}
	for _, name := range []string{"cni", "datapath", "datapath/nat", "loader", "ipam", "bpf"} {
		if !seen[name] {
			t.Errorf("package %s is gone: the table no longer guards anything", name)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		if strings.Contains(p.Doc, "SPDX") {
			t.Errorf("the licence line of %s has become its package comment", p.ImportPath)
		}
	}
}

// Every ADD and DEL starts the plugin anew and pays for the initialisation of
// all that is linked into it.
func TestPluginLinksNoServer(t *testing.T) {
	deps := linked(t, "cmd/zipline", "github.com/containernetworking/cni/pkg/invoke")
	for _, heavy := range []string{"net/http", "crypto/tls", "go.opentelemetry.io/otel/trace", "github.com/spf13/cobra"} {
		if slices.Contains(deps, heavy) {
			t.Errorf("the plugin links %s", heavy)
		}
	}
}

// Fonts and formats of pictures are many times the size of what a node needs.
func TestOnlyTheBenchmarkDraws(t *testing.T) {
	draws := func(path string) bool { return strings.HasPrefix(path, "gonum.org/") }
	for _, p := range packages(t) {
		if name := strings.TrimPrefix(p.ImportPath, module+"/"); name != "bench/report" && slices.ContainsFunc(p.Imports, draws) {
			t.Errorf("%s imports a package for plots", name)
		}
	}
	for _, program := range []string{"cmd/zipline", "cmd/ziplinectl"} {
		if slices.ContainsFunc(linked(t, program, module+"/loader"), draws) {
			t.Errorf("%s links a package for plots", program)
		}
	}
	if !slices.ContainsFunc(linked(t, "cmd/zipline-bench", module+"/bench/report"), draws) {
		t.Error("the benchmark links no package for plots: this test guards nothing")
	}
}

// linked returns all packages that a program is made of, of which one is known.
func linked(t *testing.T, program, known string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "./"+program)
	cmd.Dir = testutil.RepoRoot(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list what %s imports: %v", program, err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, known) {
		t.Fatalf("the list lacks what %s is known to import", program)
	}
	return deps
}
