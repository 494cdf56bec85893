// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// series are samples by their name and labels, as text.
type series map[string]float64

func parseMetrics(t *testing.T, text string) series {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v\n%s", err, problems, text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("parse metrics: %v\n%s", err, text)
	}
	all := series{}
	for name, family := range families {
		for _, m := range family.Metric {
			value := m.GetGauge().GetValue()
			if family.GetType() == dto.MetricType_COUNTER {
				value = m.GetCounter().GetValue()
			}
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			slices.Sort(labels)
			all[name+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return all
}

// TestMetrics compares what is exported in three ways with what the node has.
func TestMetrics(t *testing.T) {
	n := newFlowsNode(t)
	_, text, _ := n.execute(t, "metrics")
	if all := parseMetrics(t, text); all[`zipline_info{tier="none",version="dev"}`] != 1 || all[`zipline_uplinks{}`] != 0 {
		t.Errorf("metrics of an empty node:\n%s", text)
	}
	a, b := n.attach("pods", 77, nil), n.attach("pods", 77, nil)
	n.attach("more", 78, nil)
	server := b.ServeTCP(t, netip.AddrPortFrom(b.v4, 0))
	for range 3 {
		if _, err := a.EchoTCP(server.Addr, []byte("hello"), testrig.Socket{}); err != nil {
			t.Fatal(err)
		}
	}
	talk := startTalk(t, "udp", &a.Namespace, n.Outside.ServeUDP(t, netip.AddrPortFrom(testrig.InternetIPv4, 0)).Addr)
	time.Sleep(time.Second)
	talk.stop()
	time.Sleep(200 * time.Millisecond)
	want := series{
		`zipline_endpoints{network="pods"}`: 2, `zipline_endpoints{network="more"}`: 1,
		`zipline_leases{family="ipv4",network="pods",state="held"}`: 2, `zipline_leases{family="ipv6",network="pods",state="held"}`: 2,
		`zipline_leases{family="ipv4",network="more",state="held"}`: 1, `zipline_leases{family="ipv6",network="more",state="held"}`: 1,
		`zipline_leases{family="ipv4",network="pods",state="free"}`: 65536 - 5, `zipline_leases{family="ipv4",network="more",state="free"}`: 65536 - 4,
		`zipline_uplinks{}`: 1, `zipline_map_entries{map="endpoints"}`: 6, `zipline_map_max_entries{map="endpoints"}`: 65536,
		`zipline_map_entries{map="devices"}`: 3,
	}
	carried := map[string]int{}
	moving := map[string]bool{} // a device may add to these at any moment
	for _, c := range n.countersByNetwork(t) {
		if c.Reason.Verdict() == bpf.VerdictRedirect && !c.Reason.OwnAccount() {
			carried[c.Network] += int(c.Packets)
		}
		name := fmt.Sprintf("zipline_packets_total{hook=%q,network=%q,reason=%q,verdict=%q}", c.Hook, c.Network, c.Reason.Token(), c.Reason.Verdict())
		want[name], moving[name] = float64(c.Packets), c.Reason.OwnAccount()
	}
	if carried["pods"] < 20 || len(carried) != 1 {
		t.Errorf("packets carried by network: %v, want those of pods", carried)
	}
	check := func(how, text string) {
		t.Helper()
		all := parseMetrics(t, text)
		for name, value := range want {
			if got, ok := all[name]; !ok || got != value && !moving[name] {
				t.Errorf("%s: %s is %v (%v), want %v", how, name, got, ok, value)
			}
		}
		infos := slices.DeleteFunc(slices.Collect(maps.Keys(all)), func(name string) bool { return !strings.HasPrefix(name, "zipline_info") })
		if len(infos) != 1 || !strings.Contains(infos[0], `tier="conntrack"`) {
			t.Errorf("%s: %q", how, infos)
		}
	}
	code, text, errs := n.execute(t, "metrics")
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d, stderr %q", code, errs)
	}
	check("stdout", text)
	file := filepath.Join(t.TempDir(), "zipline.prom")
	for range 2 { // made, replaced
		if code, out, errs := n.execute(t, "metrics", "--textfile", file); code != exitOK || out+errs != "" {
			t.Fatalf("exit code %d, stdout %q, stderr %q", code, out, errs)
		}
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	check("textfile", string(content))
	files, _ := os.ReadDir(filepath.Dir(file))
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o644 || len(files) != 1 {
		t.Errorf("mode %v, %v, files %v", info.Mode(), err, files)
	}
	served := n.start(t, "metrics", "--listen", "127.0.0.1:0")
	line := next(t, served.errors)
	check("served", n.get(t, line[strings.Index(line, "http://"):]))
	served.interrupt(t)
}

// get reads a URL inside the node.
func (n *flowsNode) get(t *testing.T, url string) (body string) {
	t.Helper()
	err := n.Node.Do(func() error {
		transport := &http.Transport{DialContext: n.dialHere}
		defer transport.CloseIdleConnections()
		response, err := (&http.Client{Transport: transport}).Get(url)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		body = string(text)
		if response.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %s: %s", response.Status, body)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestMetricsUsage(t *testing.T) {
	for _, line := range []string{"metrics --listen :1 --textfile x.prom", "metrics --textfile x.txt", "metrics x"} {
		if code, out, errs := execute(t, strings.Fields(line)...); code != exitUsage || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", line, code, out, errs)
		}
	}
}
