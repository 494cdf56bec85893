// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// isolating returns the options of an endpoint with isolated addresses.
func isolating(s ...string) Options { return Options{Isolated: prefixes(s...)} }

func TestIsolationComesAndGoesWithAdd(t *testing.T) {
	r := newRuleset(t)
	o := owner("zl0000000000001", "net")
	s, opts := source("10.1.0.2/16"), isolating("10.1.0.2/16", "fd00::2/64", "10.7.0.2/24")
	mustAdd(t, r, o, Options{}, s)
	plain := listing(t)
	mustAdd(t, r, o, opts, s)
	once := listing(t)
	mustAdd(t, r, o, opts, s)
	if again := listing(t); again != once {
		t.Errorf("second Add changed the table:\n%s", again)
	}
	if err := r.Check(o, []Source{s}, opts); err != nil {
		t.Error(err)
	}
	for _, pair := range [][2]string{{"10.1.9.9", "10.1.0.2"}, {"fd00::9", "fd00::2"}, {"10.7.0.3", "10.7.0.2"}} {
		if !neighbours(t, r, pair[0], pair[1]) {
			t.Errorf("%s and %s are no neighbours", pair[0], pair[1])
		}
	}
	for _, pair := range [][2]string{{"10.1.0.2", "10.7.0.2"}, {"10.7.1.2", "10.7.0.2"}, {"fd00::2", "fd00:0:0:1::2"}} {
		if neighbours(t, r, pair[0], pair[1]) {
			t.Errorf("%s and %s are neighbours", pair[0], pair[1])
		}
	}
	// Translated no longer: what the address had as a source goes.
	mustAdd(t, r, o, opts)
	if n := strings.Count(listing(t), `comment "`+o.Device); n != 2*len(opts.Isolated) { // isolated, and its own
		t.Errorf("Add without sources left some, %d elements:\n%s", n, listing(t))
	}
	// Isolated no longer.
	mustRemove(t, r, o, addr("fd00::2"), addr("10.7.0.2"))
	mustAdd(t, r, o, Options{}, s)
	if err := r.RemoveNetwork(prefixes("10.1.0.0/16", "fd00::/64", "10.7.0.0/24")); err != nil {
		t.Fatal(err)
	}
	if after := listing(t); after != plain {
		t.Errorf("the way back left something:\n%s", after)
	}
}

// neighbours asks the kernel whether a pair is in the set.
func neighbours(t *testing.T, r *Ruleset, source, destination string) bool {
	t.Helper()
	s, d := addr(source), addr(destination)
	answer, err := r.look(getElement(familyOf(s).segment, rectangle{span{s, s}, span{d, d}}.element()))
	if err != nil {
		t.Fatal(err)
	}
	return !answer.replies[0].missing()
}

func TestIsolatedAddressHasOneOwner(t *testing.T) {
	r := newRuleset(t)
	empty := listing(t)
	a, b := owner("zla", "net"), owner("zlb", "net")
	mustAdd(t, r, a, isolating("10.1.0.2/16"))
	before := listing(t)
	err := r.Add(b, []Source{source("fd00::9/64")}, isolating("fd00::9/64", "10.1.0.2/16"))
	var owned *OwnedError
	if !errors.As(err, &owned) || owned.Owner != a || owned.Address != addr("10.1.0.2") {
		t.Errorf("Add of another's address: %v, want an OwnedError", err)
	}
	mustRemove(t, r, b, addr("10.1.0.2"))
	if err := r.RemoveNetwork(prefixes("10.1.0.0/16", "10.0.0.0/8")); err != nil {
		t.Error(err)
	}
	if after := listing(t); after != before {
		t.Errorf("others changed the table:\n%s", after)
	}
	mustRemove(t, r, a, addr("10.1.0.2"))
	if err := r.RemoveNetwork(prefixes("10.1.0.0/16")); err != nil {
		t.Error(err)
	}
	if after := listing(t); after != empty {
		t.Errorf("something is left:\n%s", after)
	}
}

// Each of the two kinds of rectangles stays for its own addresses only.
func TestRemoveNetworkTellsIsolatedFromTranslated(t *testing.T) {
	r := newRuleset(t)
	a, b := owner("zla", "net"), owner("zlb", "net")
	mustAdd(t, r, b, isolating("10.1.0.3/16"), source("10.1.0.3/16"))
	if err := r.Add(a, []Source{source("10.1.0.2/16")}, Options{}); err != nil {
		t.Fatal(err)
	}
	count := func(set string) int {
		return strings.Count(nft(t, "list", "set", "inet", TableName, set), "network net")
	}
	for _, step := range []struct {
		gone            Owner
		addr            string
		exempt, segment int
	}{{b, "10.1.0.3", 1, 0}, {a, "10.1.0.2", 0, 0}} {
		mustRemove(t, r, step.gone, addr(step.addr))
		if err := r.RemoveNetwork(prefixes("10.1.0.0/16")); err != nil {
			t.Fatal(err)
		}
		if e, s := count("exempt4"), count("segment4"); e != step.exempt || s != step.segment {
			t.Errorf("after %s: %d exempt destinations and %d segments, want %d and %d",
				step.gone.Device, e, s, step.exempt, step.segment)
		}
	}
}

func TestCollectTakesIsolatedAddresses(t *testing.T) {
	r := newRuleset(t)
	mustAdd(t, r, owner("zlalive", "net"), isolating("10.1.0.2/16", "fd00::2/64"))
	mustAdd(t, r, owner("zlother", "net-2"), isolating("10.2.0.2/16"))
	before := listing(t)
	mustAdd(t, r, owner("zldead", "net"), isolating("10.1.0.3/16", "fd00::3/64"), source("10.1.0.3/16"))
	n, err := r.Collect("net", func(device string) bool { return device == "zlalive" })
	if want := 2 + 1 + 2; n != want || err != nil { // isolated, translated, its own
		t.Errorf("collected %d, %v, want %d", n, err, want)
	}
	if err := r.RemoveNetwork(prefixes("10.1.0.0/16", "fd00::/64")); err != nil {
		t.Fatal(err)
	}
	if after := listing(t); after != before {
		t.Errorf("table after Collect:\n%s\nwant:\n%s", after, before)
	}
}

func TestIsolationIsInstalledAnew(t *testing.T) {
	for name, edit := range map[string]func(string) string{
		"in place":   func(s string) string { return strings.ReplaceAll(s, versionChain, "version-old") },
		"by rebuild": func(s string) string { return strings.ReplaceAll(s, "priority -450", "priority -300") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRuleset(t)
			o, opts := owner("zl0", "net"), isolating("10.1.0.2/16", "fd00::2/64")
			mustAdd(t, r, o, opts)
			good := listing(t)
			restore(t, edit(good))
			if err := r.Add(o, nil, opts); !errors.Is(err, ErrNoTable) {
				t.Errorf("Add: %v, want ErrNoTable", err)
			}
			if err := r.Install(); err != nil {
				t.Fatal(err)
			}
			if again := listing(t); sorted(again) != sorted(good) {
				t.Errorf("table after Install:\n%s", again)
			}
			if err := r.Check(o, nil, opts); err != nil {
				t.Error(err)
			}
		})
	}
}

// A node with the version before this one has no such sets.
func TestIsolationMeetsATableWithoutIt(t *testing.T) {
	enterNetns(t)
	r := mustOpen(t)
	nft(t, "add table inet zipline { chain version-849e9f7deecf { }; set source4 { type ipv4_addr; }; }")
	o, opts := owner("zl0", "net"), isolating("10.1.0.2/16")
	if err := r.Add(o, nil, opts); !errors.Is(err, ErrNoTable) {
		t.Errorf("Add: %v, want ErrNoTable", err)
	}
	mustRemove(t, r, o, addr("10.1.0.2"))
	if err := r.RemoveNetwork(prefixes("10.1.0.0/16")); err != nil {
		t.Error(err)
	}
	if err := addOrInstall(r, o, nil, opts); err != nil {
		t.Error(err)
	}
	if err := r.Check(o, nil, opts); err != nil {
		t.Error(err)
	}
}

// An interval set takes no overlaps, in whatever order they come.
func TestSegmentsOverlap(t *testing.T) {
	for _, order := range [][]string{{"10.88.0.2/16", "10.1.0.2/8", "10.88.0.3/16"}, {"10.1.0.2/8", "10.88.0.2/16", "10.2.0.2/8"}} {
		t.Run(order[0], func(t *testing.T) {
			r := newRuleset(t)
			for i, p := range order {
				mustAdd(t, r, owner("zl"+string(rune('a'+i)), "net"), isolating(p))
			}
			for i, p := range order {
				if err := r.Check(owner("zl"+string(rune('a'+i)), "net"), nil, isolating(p)); err != nil {
					t.Error(err)
				}
			}
			if !neighbours(t, r, "10.88.0.2", "10.88.0.9") || !neighbours(t, r, "10.1.0.2", "10.2.0.2") {
				t.Errorf("neighbours are missing:\n%s", listing(t))
			}
		})
	}
}

func TestAddRefusesNonsenseToIsolate(t *testing.T) {
	r := newRuleset(t)
	for name, isolated := range map[string][]netip.Prefix{
		"no address":        {{}},
		"no length":         {netip.PrefixFrom(addr("10.1.0.2"), -1)},
		"a mapped address":  {netip.PrefixFrom(netip.MustParseAddr("::ffff:10.1.0.2"), 112)},
		"an address twice":  prefixes("10.1.0.2/16", "10.1.0.2/24"),
		"a length too long": {netip.PrefixFrom(addr("10.1.0.2"), 33)},
	} {
		if err := r.Add(owner("zl0", "net"), nil, Options{Isolated: isolated}); err == nil {
			t.Errorf("Add with %s: no error", name)
		}
	}
}
