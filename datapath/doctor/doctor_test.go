// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
	"github.com/zipline-cni/zipline/loader"
)

func TestItChangesNothingAndIsQuick(t *testing.T) {
	p := newPatient(t)
	p.network("one", "")
	p.endpoint("zl0")
	before := p.Snapshot(t)
	start := time.Now()
	r := p.run()
	if took := time.Since(start); took > time.Second*testrig.Slowness {
		t.Errorf("it took %v", took)
	}
	if after := p.Snapshot(t); !slices.Equal(after, before) {
		t.Errorf("before:\n%q\nafter:\n%q", before, after)
	}
	entries := p.MustRun(t, "find", "/sys/fs/bpf", "-mindepth", "1", "-name", "zipline*")
	if entries != "" {
		t.Errorf("left behind: %s", entries)
	}
	if r.Tier != string(loader.TierConntrack) || len(r.Forwarding) != 4 {
		t.Errorf("tier %q, forwarding %v", r.Tier, r.Forwarding)
	}
}

// Every check is reached alone, and speaks.
func TestEachCheckAlone(t *testing.T) {
	p := newPatient(t)
	for _, c := range Checks() {
		r := p.run(c.ID)
		if len(r.Findings) == 0 {
			t.Errorf("%s finds nothing, not even that all is well", c.ID)
		}
		for _, f := range r.Findings {
			if f.Check != c.ID || f.Topic != c.Topic || f.Found == "" || f.Level == "" {
				t.Errorf("%s: %+v", c.ID, f)
			}
		}
	}
	if _, err := Run(p.options, "no-such"); err == nil {
		t.Error("a check that there is not was run")
	}
}

func TestWithoutRightsItSaysWhatItCouldNotLookAt(t *testing.T) {
	p := newPatient(t)
	p.network("one", `, "forwarding": "direct", "isGateway": true`)
	var r *Report
	err := p.Do(func() (err error) {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil { // of this thread, which ends with it
			return err
		}
		r, err = Run(p.options)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"bpffs", "conntrack-functions", "ctnetlink", "forward-policy", "ipsec", "jit", "netdev-chains", "nftables", "programs", "redirect-peer",
		"tc-programs", "tcx", "tier", "veth",
	}
	var got []string
	for _, f := range r.Findings {
		switch {
		case f.Check == "memlock": // with a limit that is large enough there is nothing to try
		case f.Level == Skipped:
			got = append(got, f.Check)
		case f.Level == Warning || f.Level == Problem:
			t.Errorf("held against the node: %+v", f)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("skipped %q\nwant    %q", got, want)
	}
	if r.Tier != string(tierUnknown) {
		t.Errorf("tier %q", r.Tier)
	}
}

// lacking is a node whose kernel lacks something: this one has everything.
func lacking(change func(n *node)) *node {
	n := newNode(Options{Root: "/nowhere", sysctls: map[string]string{
		"net/bridge/bridge-nf-call-iptables": "0", "net/bridge/bridge-nf-call-ip6tables": "0",
	}})
	have := func() error { return nil }
	n.programs, n.peer, n.conntrack, n.tcx, n.bpffs, n.kernel = have, have, have, have, have, have
	change(n)
	return n
}

func TestWhatAKernelLacks(t *testing.T) {
	missing := func() error { return loader.ErrNotSupported }
	unsupported := func(key string) func() error {
		return func() error {
			return &datapath.UnsupportedError{Key: key, Reason: errors.New("operation not supported")}
		}
	}
	for _, c := range []struct {
		name   string
		change func(n *node)
		check  func(n *node) []Finding
		level  Level
		tier   loader.Tier
		auto   string
	}{
		{"nothing", func(*node) {}, checkTier, OK, loader.TierConntrack, givesDirect},
		{"programs", func(n *node) { n.programs = missing }, checkPrograms, Warning, loader.TierKernel, givesStack},
		{"permission", func(n *node) { n.programs = func() error { return loader.ErrNotPermitted } }, checkPrograms, Warning, loader.TierKernel, givesStack},
		{"redirect_peer", func(n *node) { n.peer = missing }, checkRedirectPeer, Warning, loader.TierKernel, givesStack},
		{"conntrack functions", func(n *node) { n.conntrack = missing }, checkConntrackFunctions, Warning, loader.TierDirect, givesStack},
		{"conntrack functions, for portmap", func(n *node) {
			n.conntrack = missing
			n.configs = func() ([]configured, []Finding) {
				return []configured{{Network: Network{Name: "one", Forwarding: datapath.ForwardingDirect}, chain: []string{"portmap"}}}, nil
			}
		}, checkChain, Warning, loader.TierDirect, givesStack},
		{"tcx", func(n *node) { n.tcx = missing }, checkTCX, Info, loader.TierConntrack, givesDirect},
		{"bpffs", func(n *node) { n.bpffs = func() error { return os.ErrPermission } }, checkBPFFS, Warning, loader.TierKernel, givesStack},
		{"a mounted bpffs", func(n *node) { n.bpffs = func() error { return errNotMounted } }, checkBPFFS, Info, loader.TierConntrack, givesDirect},
		{"a part of nftables", func(n *node) { n.kernel = unsupported("nftables") }, checkNFTables, Problem, loader.TierConntrack, givesDirect},
		{"veth", func(n *node) { n.kernel = unsupported("veth") }, checkVeth, Problem, loader.TierConntrack, givesDirect},
		{"a tier of its own for netfilter", func(n *node) { n.sysctls["net/bridge/bridge-nf-call-iptables"] = "1" }, checkBridgeNetfilter, Info, loader.TierConntrack, givesTracked},
		{"a liberal conntrack", func(n *node) {
			n.sysctls["net/netfilter/nf_conntrack_max"], n.sysctls["net/netfilter/nf_conntrack_tcp_ignore_invalid_rst"] = "1", ""
		}, checkLiberal, Warning, loader.TierConntrack, givesDirect},
	} {
		n := lacking(c.change)
		worst := (&Report{Findings: c.check(n)}).Worst()
		tier, words := n.outcome()
		if worst != c.level || tier != string(c.tier) || words[0].Gives != c.auto {
			t.Errorf("without %s: level %s, want %s; tier %s, want %s; auto %q, want %q", c.name, worst, c.level, tier, c.tier, words[0].Gives, c.auto)
		}
	}
}

// What the words give is docs/architecture.md's table.
func TestWhatTheWordsGive(t *testing.T) {
	for _, c := range []struct {
		tier      loader.Tier
		netfilter bool
		want      [4]string // auto, direct, tracked, kernel
	}{
		{loader.TierConntrack, false, [4]string{givesDirect, givesDirect, givesTracked, givesStack}},
		{loader.TierConntrack, true, [4]string{givesTracked, givesDirect, givesTracked, givesStack}},
		{loader.TierDirect, false, [4]string{givesStack, givesShort, givesStack, givesStack}},
		{loader.TierKernel, false, [4]string{givesStack, givesStack, givesStack, givesStack}},
		{tierUnknown, false, [4]string{givesUnknown, givesUnknown, givesUnknown, givesStack}},
	} {
		for i, word := range forwardingWords {
			if got := gives(c.tier, word, c.netfilter); got != c.want[i] {
				t.Errorf("tier %s, netfilter %v, %s: %q, want %q", c.tier, c.netfilter, word, got, c.want[i])
			}
		}
	}
}

// TestEveryCheckIsDocumented compares docs/doctor.md with the checks. Write it anew
// with UPDATE=1.
func TestEveryCheckIsDocumented(t *testing.T) {
	file := filepath.Join(testutil.RepoRoot(t), "docs", "doctor.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- checks: a test keeps this table -->\n", "<!-- end of checks -->\n"
	head, rest, found := strings.Cut(string(text), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no %q and %q", file, begin, end)
	}
	table := "| check | topic | looks at | complains of |\n|---|---|---|---|\n"
	ids := map[string]bool{}
	for _, c := range Checks() {
		if ids[c.ID] || !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(c.ID) {
			t.Errorf("id %q is not one, or not the only one", c.ID)
		}
		ids[c.ID] = true
		table += "| `" + c.ID + "` | " + c.Topic + " | " + c.Looks + " | " + c.Bad + " |\n"
	}
	want := head + begin + table + end + tail
	if want == string(text) {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Errorf("%s is not what the checks say: run this test with UPDATE=1", file)
	} else if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
