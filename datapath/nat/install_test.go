// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// restore replaces the whole ruleset by what nft printed.
func restore(tb testing.TB, text string) {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "ruleset.nft")
	if err := os.WriteFile(file, []byte("flush ruleset\n"+text), 0o600); err != nil {
		tb.Fatal(err)
	}
	nft(tb, "-f", file)
}

// sorted orders chains and sets: Install appends what is missing.
func sorted(listing string) string {
	blocks := strings.Split(listing, "\n\n")
	blocks[0] = strings.TrimPrefix(blocks[0], "table inet zipline {\n")
	blocks[len(blocks)-1] = strings.TrimSuffix(blocks[len(blocks)-1], "\n}\n")
	slices.Sort(blocks)
	return strings.Join(blocks, "\n\n")
}

func TestInstallMendsEverythingAndKeepsElements(t *testing.T) {
	for name, edit := range map[string]func(text string) string{
		"nothing":         func(s string) string { return s },
		"an older marker": func(s string) string { return strings.ReplaceAll(s, versionChain, "version-old") },
		"no marker":       func(s string) string { return strings.ReplaceAll(s, "chain "+versionChain, "chain x") },
		"a set that another version had": func(s string) string {
			return strings.Replace(s, "set macspoofchk", "set gone { type inet_service; elements = { 80 } }\nset macspoofchk", 1)
		},
		"a map to a chain that another version had": func(s string) string {
			return strings.Replace(s, "chain prerouting", "chain gone { drop\n }\n"+
				"map goners { type ipv4_addr : verdict; elements = { 10.9.9.9 : goto gone } }\n"+
				"chain prerouting", 1)
		},
		"another rule": func(s string) string { return strings.ReplaceAll(s, "return", "accept") },
		"a policy": func(s string) string {
			return strings.ReplaceAll(s, "priority filter; policy accept", "priority filter; policy drop")
		},
		"a priority": func(s string) string { return strings.ReplaceAll(s, "priority -450", "priority -300") },
		"a set's flags": func(s string) string {
			return strings.Replace(s, "set source4 {\n\t\ttype ipv4_addr", "set source4 {\n\t\ttype ipv4_addr\n\t\tsize 65535\n\t\tflags dynamic", 1)
		},
		"a rule with an anonymous set": func(s string) string {
			return strings.Replace(s, "oifgroup 31340 return", "oifgroup { 31340, 7 } return", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRuleset(t)
			sources := []Source{source("10.1.0.2/16"), source("fd00::2/64")}
			sources[0].Action, sources[0].To = SNAT, addr("192.0.2.7")
			o := owner("zl0000000000001", "net")
			mustAdd(t, r, o, Options{}, sources...)
			good := listing(t)
			text := edit(good)
			if text == good && name != "nothing" {
				t.Fatal("the edit changed nothing")
			}
			restore(t, text)
			if name != "nothing" && r.Check(o, sources, Options{}) == nil {
				t.Error("Check did not see it")
			}
			if err := r.Install(); err != nil {
				t.Fatal(err)
			}
			if again := listing(t); sorted(again) != sorted(good) {
				t.Errorf("table after Install:\n%s", again)
			}
			if err := r.Check(o, sources, Options{}); err != nil {
				t.Error(err)
			}
			mustAdd(t, r, o, Options{}, sources...)
		})
	}
}

func TestAddWantsInstallForAnotherVersion(t *testing.T) {
	for name, edit := range map[string]func(string) string{
		"another version":  func(s string) string { return strings.ReplaceAll(s, versionChain, "version-old") },
		"a missing rule":   func(s string) string { return strings.Replace(s, "oifgroup 31341 return", "", 1) },
		"another policy":   func(s string) string { return strings.Replace(s, "srcnat; policy accept", "srcnat; policy drop", 1) },
		"another priority": func(s string) string { return strings.Replace(s, "-450", "-300", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRuleset(t)
			restore(t, edit(listing(t)))
			err := r.Add(owner("zl0", "net"), []Source{source("10.1.0.2/16")}, Options{})
			if !errors.Is(err, ErrNoTable) {
				t.Errorf("Add: %v, want ErrNoTable", err)
			}
			if strings.Contains(listing(t), "10.1.0.2") {
				t.Error("Add added to a table that it refused")
			}
		})
	}
}

// Other tables, and what they refer to, are not ours.
func TestInstallTouchesNoOtherTable(t *testing.T) {
	enterNetns(t)
	r := mustOpen(t)
	nft(t, "add table ip zipline { chain x { drop; }; }")
	nft(t, "add table inet other { set source4 { type ipv4_addr; elements = { 10.1.0.2 }; }; chain forward { accept; }; }")
	before := nft(t, "list", "ruleset")
	for range 3 {
		if err := r.Install(); err != nil {
			t.Fatal(err)
		}
	}
	mustAdd(t, r, owner("zl0", "net"), Options{}, source("10.1.0.2/16"))
	nft(t, "delete table inet zipline")
	if after := nft(t, "list", "ruleset"); after != before {
		t.Errorf("other tables changed:\n%s", after)
	}
}

func TestInstallKeepsThousandsOfElements(t *testing.T) {
	r := newRuleset(t)
	const n = 3000
	for i := range n {
		o, sources, opts := endpoint(i, 20)
		mustAdd(t, r, o, opts, sources...)
	}
	good := listing(t)
	for name, edit := range map[string]func(string) string{
		"in place":   func(s string) string { return strings.ReplaceAll(s, versionChain, "version-old") },
		"by rebuild": func(s string) string { return strings.ReplaceAll(s, "priority -450", "priority -300") },
	} {
		restore(t, edit(good))
		if err := r.Install(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if count := strings.Count(listing(t), "comment \"zl"); count != strings.Count(good, "comment \"zl") {
			t.Errorf("%s: %d elements left of %d", name, count, strings.Count(good, "comment \"zl"))
		}
		for _, i := range []int{0, n / 2, n - 1} {
			o, sources, opts := endpoint(i, 20)
			if err := r.Check(o, sources, opts); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
