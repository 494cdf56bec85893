// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/zipline-cni/zipline/bpf"
	testrepo "github.com/zipline-cni/zipline/internal/testutil"
	"github.com/zipline-cni/zipline/loader"
)

var example = &Sample{
	Release: "1", Tier: "conntrack",
	Counters:  []loader.Counter{{Network: "pods", Hook: bpf.HookUplink, Reason: bpf.ZiplineReasonREASON_NEXT_CHECK_IN, Packets: 3, Bytes: 300}},
	Maps:      []loader.MapStatus{{Name: "endpoints", Entries: 2, MaxEntries: 65536, Bytes: 1024}},
	Endpoints: map[string]int{"pods": 2}, Uplinks: []int{2},
	Leases: []Leases{{"pods", "ipv4", "held", 2}},
}

func TestTextFormat(t *testing.T) {
	if problems, err := testutil.CollectAndLint(example); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	want := `
# HELP zipline_packets_total Packets that a program decided about, since the maps were made; a GSO packet counts once.
# TYPE zipline_packets_total counter
zipline_packets_total{hook="from_uplink",network="pods",reason="next-check-in",verdict="next"} 3
# HELP zipline_leases Addresses of a network by state: held by an endpoint, stale, pending, unknown (another plugin's), free (of the IPv4 subnets in use).
# TYPE zipline_leases gauge
zipline_leases{family="ipv4",network="pods",state="held"} 2
`
	if err := testutil.CollectAndCompare(example, strings.NewReader(want), "zipline_packets_total", "zipline_leases"); err != nil {
		t.Error(err)
	}
	var text strings.Builder
	if err := example.WriteText(&text); err != nil || !strings.Contains(text.String(), "zipline_uplinks 1\n") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

func TestCountLeases(t *testing.T) {
	lease := func(network, state, addr string) Lease { return Lease{network, state, netip.MustParseAddr(addr)} }
	got := fmt.Sprint(count([]Lease{
		lease("a", "held", "10.1.0.2"), lease("a", "held", "fd00::2"), lease("a", "stale", "10.1.0.3"),
		lease("b", "held", "10.2.0.2"), lease("c", "unknown", "10.9.0.2"),
	}, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.2.0.0/30"), netip.MustParsePrefix("fd00::/64")}))
	want := "[{a ipv4 held 1} {a ipv6 held 1} {a ipv4 stale 1} {b ipv4 held 1} {c ipv4 unknown 1} {a ipv4 free 251} {b ipv4 free 0}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestReasonsAreDocumented keeps the table of docs/metrics.md true.
func TestReasonsAreDocumented(t *testing.T) {
	var table strings.Builder
	table.WriteString("| `reason` | `verdict` | what it means |\n|---|---|---|\n")
	all := bpf.ReasonsByToken()
	for _, reason := range slices.Sorted(maps.Values(all)) {
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", reason.Token(), reason.Verdict(), reason)
	}
	text, err := os.ReadFile(filepath.Join(testrepo.RepoRoot(t), "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\n"+table.String()+"\n") {
		t.Errorf("docs/metrics.md has not this table of the reasons:\n%s", table.String())
	}
}

// TestDashboard holds every query of the dashboard to metrics, labels and reasons that there are.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testrepo.RepoRoot(t), "docs", "grafana-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID         int
			Title      string
			Datasource struct{ UID string }
			Targets    []struct{ Expr string }
		}
		Templating struct{ List []struct{ Name, Type string } }
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	descs := make(chan *prometheus.Desc, 100)
	example.Describe(descs)
	close(descs)
	fields := regexp.MustCompile(`fqName: "(\w+)".*variableLabels: \{([^}]*)\}`)
	for d := range descs {
		m := fields.FindStringSubmatch(d.String())
		known[m[1]] = m[2] + ",instance"
	}
	reasons := bpf.ReasonsByToken()
	var ownAccount []string
	for token, reason := range reasons {
		if reason.OwnAccount() {
			ownAccount = append(ownAccount, token)
		}
	}
	slices.Sort(ownAccount)
	selector := regexp.MustCompile(`(zipline_\w+)\{([^}]*)\}`)
	label := regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"`)
	leftOut := regexp.MustCompile(`reason!~"([^"]*)"`)
	seen := map[int]bool{}
	for _, p := range dashboard.Panels {
		if seen[p.ID] || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %q: id %d, datasource %q, %d queries", p.Title, p.ID, p.Datasource.UID, len(p.Targets))
		}
		seen[p.ID] = true
		for _, q := range p.Targets {
			found := selector.FindAllStringSubmatch(q.Expr, -1)
			if len(found) == 0 {
				t.Errorf("panel %q: query %s asks for nothing of ours", p.Title, q.Expr)
			}
			for _, m := range leftOut.FindAllStringSubmatch(q.Expr, -1) {
				words := strings.Split(m[1], "|")
				if slices.Sort(words); !slices.Equal(words, ownAccount) {
					t.Errorf("panel %q leaves out %v, and %v are no traffic", p.Title, words, ownAccount)
				}
			}
			for _, m := range found {
				if labels := known[m[1]]; strings.Contains(","+labels+",", ",network,") != strings.Contains(m[2], `network=~"$network"`) {
					t.Errorf("panel %q: %s has the labels %s, and is selected by %s", p.Title, m[1], labels, m[2])
				}
				for _, l := range label.FindAllStringSubmatch(m[2], -1) {
					if labels, ok := known[m[1]]; !ok || !strings.Contains(","+labels+",", ","+l[1]+",") {
						t.Errorf("panel %q: %s has no label %s, only %s", p.Title, m[1], l[1], labels)
					}
				}
			}
		}
	}
	var variables []string
	for _, v := range dashboard.Templating.List {
		variables = append(variables, v.Name+" "+v.Type)
	}
	if len(dashboard.Panels) < 8 || !slices.Equal(variables, []string{"datasource datasource", "instance query", "network query"}) {
		t.Errorf("%d panels, variables %q", len(dashboard.Panels), variables)
	}
}
