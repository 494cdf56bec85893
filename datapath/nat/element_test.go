// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

func TestAddIsIdempotentAndReplaces(t *testing.T) {
	r := newRuleset(t)
	o := owner("zl0000000000001", "net")
	first := source("10.1.0.2/16")
	mac := Options{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	mustAdd(t, r, o, mac, first)
	once := listing(t)
	mustAdd(t, r, o, mac, first)
	if again := listing(t); again != once {
		t.Errorf("second Add changed the table:\n%s", again)
	}
	other := first
	other.Action, other.To = SNAT, addr("192.0.2.7")
	otherMAC := Options{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	random := first
	random.Action = MasqueradeFullyRandom
	for _, step := range []struct {
		opts Options
		s    Source
	}{{otherMAC, other}, {Options{}, random}, {mac, other}, {mac, first}} {
		mustAdd(t, r, o, step.opts, step.s)
		if err := r.Check(o, []Source{step.s}, step.opts); err != nil {
			t.Error(err)
		}
	}
	if again := listing(t); again != once {
		t.Errorf("the way back to the first Add left something:\n%s", again)
	}
}

func TestAddRefusesAnothersAddressAndChangesNothing(t *testing.T) {
	r := newRuleset(t)
	a, b := owner("zl000000000000a", "net"), owner("zl000000000000b", "net")
	mustAdd(t, r, a, Options{}, source("10.1.0.2/16"))
	before := listing(t)
	err := r.Add(b, []Source{source("fd00::9/64"), source("10.1.0.2/16")}, Options{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}})
	var owned *OwnedError
	if !errors.Is(err, ErrOwned) || !errors.As(err, &owned) {
		t.Fatalf("error %v, want ErrOwned", err)
	}
	if owned.Owner != a || owned.Address != addr("10.1.0.2") {
		t.Errorf("owned by %+v at %s, want %+v", owned.Owner, owned.Address, a)
	}
	if after := listing(t); after != before {
		t.Errorf("refused Add changed the table:\n%s", after)
	}
}

func TestRemoveLeavesWhatBelongsToOthers(t *testing.T) {
	r := newRuleset(t)
	empty := listing(t)
	a, b := owner("zl000000000000a", "net"), owner("zl000000000000b", "net")
	snat := source("10.1.0.3/16")
	snat.Action, snat.To = SNAT, addr("192.0.2.7")
	random := source("fd00::3/64")
	random.Action = MasqueradeFullyRandom
	mac := Options{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
	mustAdd(t, r, a, Options{}, source("10.1.0.2/16"))
	before := listing(t)
	// The runtime's story: A had the address, lost it, B has it, DEL A comes late.
	mustRemove(t, r, b, addr("10.1.0.2"), addr("10.1.0.99"), addr("fd00::2"))
	if after := listing(t); after != before {
		t.Errorf("Remove by another owner changed the table:\n%s", after)
	}
	mustAdd(t, r, b, mac, snat, random)
	mustRemove(t, r, Owner{Device: b.Device}, snat.Address, random.Address, addr("10.1.0.2"))
	for range 2 {
		mustRemove(t, r, a, addr("10.1.0.2"), addr("10.1.0.2"))
	}
	if err := r.RemoveNetwork(prefixes("10.1.0.0/16", "fd00::/64")); err != nil {
		t.Fatal(err)
	}
	if after := listing(t); after != empty {
		t.Errorf("something is left:\n%s", after)
	}
}

func TestWithoutTable(t *testing.T) {
	enterNetns(t)
	r := mustOpen(t)
	o := owner("zl0", "net")
	if err := r.Add(o, []Source{source("10.1.0.2/16")}, Options{}); !errors.Is(err, ErrNoTable) {
		t.Errorf("Add: %v, want ErrNoTable", err)
	}
	if err := r.Add(o, nil, Options{}); !errors.Is(err, ErrNoTable) {
		t.Errorf("Add of nothing: %v, want ErrNoTable", err)
	}
	mustRemove(t, r, o, addr("10.1.0.2"))
	if n, err := r.Collect("net", func(string) bool { return false }); n != 0 || err != nil {
		t.Errorf("Collect: %d, %v", n, err)
	}
	if err := r.RemoveNetwork(prefixes("10.1.0.0/16")); err != nil {
		t.Error(err)
	}
	if err := r.Check(o, nil, Options{}); err == nil || !strings.Contains(err.Error(), "table inet zipline is missing") {
		t.Errorf("Check: %v", err)
	}
}

func TestCollect(t *testing.T) {
	r := newRuleset(t)
	snat := source("10.1.0.4/16")
	snat.Action, snat.To = SNAT, addr("192.0.2.7")
	mac := Options{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
	mustAdd(t, r, owner("zlalive", "net"), Options{}, source("10.1.0.2/16"))
	mustAdd(t, r, owner("zlother", "net-2"), Options{}, source("10.2.0.2/16"))
	nft(t, "add element inet zipline source4 { 10.1.0.77 }") // an administrator's
	before := listing(t)
	mustAdd(t, r, owner("zldead1", "net"), Options{}, source("10.1.0.3/16"), source("fd00::3/64"))
	mustAdd(t, r, owner("zldead2", "net"), mac, snat)
	n, err := r.Collect("net", func(device string) bool { return device == "zlalive" })
	if want := 4 + 2 + 2; n != want || err != nil {
		t.Errorf("collected %d, %v, want %d", n, err, want)
	}
	if err := r.RemoveNetwork(prefixes("fd00::/64")); err != nil {
		t.Fatal(err)
	}
	if after := listing(t); after != before {
		t.Errorf("table after Collect:\n%s\nwant:\n%s", after, before)
	}
}

func TestRemoveNetworkLeavesSubnetsInUse(t *testing.T) {
	r := newRuleset(t)
	a, b := owner("zla", "net"), owner("zlb", "net-2")
	inner, outer := source("10.88.0.2/16"), source("10.1.0.2/8")
	mustAdd(t, r, a, Options{}, inner)
	mustAdd(t, r, b, Options{}, outer)
	both := listing(t)
	if err := r.RemoveNetwork(prefixes("10.88.0.0/16", "10.0.0.0/8", "10.77.0.0/16")); err != nil {
		t.Fatal(err)
	}
	if after := listing(t); after != both {
		t.Errorf("RemoveNetwork of subnets in use changed the table:\n%s", after)
	}
	mustRemove(t, r, a, inner.Address)
	if err := r.RemoveNetwork(prefixes("10.88.0.0/16")); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, r, b, Options{}, outer) // fills the hole that the inner subnet left
	if err := r.Check(b, []Source{outer}, Options{}); err != nil {
		t.Error(err)
	}
	if exempt(t, r, "10.88.0.7", "10.3.3.3") != true || exempt(t, r, "11.0.0.1", "10.3.3.3") {
		t.Errorf("exempt destinations of 10.0.0.0/8 are wrong:\n%s", listing(t))
	}
}

// Two networks with overlapping subnets, in both orders: an interval set takes
// no overlaps.
func TestOverlappingSubnets(t *testing.T) {
	inner, outer := source("10.88.0.2/16"), source("10.1.0.2/8")
	inner.Exempt = prefixes("192.168.0.0/16", "0.0.0.0/1")
	outer.Exempt = prefixes("192.168.7.0/24")
	same := source("10.2.0.2/8")
	same.Exempt = prefixes("192.0.0.0/8")
	for _, order := range [][]Source{{inner, outer, same}, {outer, inner, same}, {same, inner, outer}} {
		t.Run(order[0].Subnet.String(), func(t *testing.T) {
			r := newRuleset(t)
			for i, s := range order {
				mustAdd(t, r, owner("zl"+string(rune('a'+i)), "net"+string(rune('a'+i))), Options{}, s)
			}
			for i, s := range order {
				if err := r.Check(owner("zl"+string(rune('a'+i)), "net"+string(rune('a'+i))), []Source{s}, Options{}); err != nil {
					t.Error(err)
				}
			}
			for _, pair := range [][2]string{{"10.88.3.3", "10.88.0.1"}, {"10.88.0.2", "192.168.7.1"},
				{"10.88.0.2", "100.0.0.1"}, {"10.1.0.2", "10.200.0.1"}, {"10.1.0.2", "192.168.7.255"}, {"10.2.0.2", "192.0.2.1"}} {
				if !exempt(t, r, pair[0], pair[1]) {
					t.Errorf("%s to %s is translated", pair[0], pair[1])
				}
			}
			for _, pair := range [][2]string{{"10.1.0.2", "100.0.0.1"}, {"10.88.0.2", "200.0.0.1"}} {
				if exempt(t, r, pair[0], pair[1]) {
					t.Errorf("%s to %s is not translated", pair[0], pair[1])
				}
			}
		})
	}
}

// exempt asks the kernel whether a pair is in the set.
func exempt(t *testing.T, r *Ruleset, source, destination string) bool {
	t.Helper()
	s, d := addr(source), addr(destination)
	answer, err := r.look(getElement(familyOf(s).exempt, rectangle{span{s, s}, span{d, d}}.element()))
	if err != nil {
		t.Fatal(err)
	}
	return !answer.replies[0].missing()
}

func TestAddRefusesNonsense(t *testing.T) {
	r := newRuleset(t)
	good := source("10.1.0.2/16")
	with := func(change func(*Source)) Source { s := good; change(&s); return s }
	for name, s := range map[string]Source{
		"no address":                  with(func(s *Source) { s.Address = netip.Addr{} }),
		"an address with a zone":      with(func(s *Source) { s.Address = netip.MustParseAddr("fe80::1%eth0") }),
		"a mapped address":            with(func(s *Source) { s.Address = netip.MustParseAddr("::ffff:10.1.0.2") }),
		"an address elsewhere":        with(func(s *Source) { s.Address = addr("10.2.0.2") }),
		"no subnet":                   with(func(s *Source) { s.Subnet = netip.Prefix{} }),
		"an unknown action":           with(func(s *Source) { s.Action = 7 }),
		"no address to translate to":  with(func(s *Source) { s.Action = SNAT }),
		"another family":              with(func(s *Source) { s.Action, s.To = SNAT, addr("fd00::1") }),
		"an exempt prefix of another": with(func(s *Source) { s.Exempt = prefixes("fd00::/8") }),
	} {
		if err := r.Add(owner("zl0", "net"), []Source{s}, Options{}); err == nil {
			t.Errorf("Add with %s: no error", name)
		}
	}
	if err := r.Add(owner("zl0", "net"), []Source{good, good}, Options{}); err == nil {
		t.Error("Add of the same source twice: no error")
	}
	for _, device := range []string{"", "0123456789abcdef"} {
		if err := r.Add(owner(device, "net"), []Source{good}, Options{}); err == nil {
			t.Errorf("Add for device %q: no error", device)
		}
	}
	for _, all := range [][]netip.Addr{{{}}, {addr("::ffff:10.1.0.2")}, {addr("fe80::1%eth0")}, {good.Address, good.Address}} {
		if err := r.Add(owner("zl0", "net"), nil, Options{Addresses: all}); err == nil {
			t.Errorf("Add of the addresses %s: no error", all)
		}
	}
	if err := r.Add(owner("zl0", "net"), nil, Options{MAC: net.HardwareAddr{1}}); err == nil {
		t.Error("Add with a MAC of one byte: no error")
	}
}

func TestComments(t *testing.T) {
	long := strings.Repeat("n", 300)
	for _, o := range []Owner{
		owner("zl0123456789abc", "podman"), owner("zl0", long),
		{"zl0", "net", long, "eth0"}, {"zl0", `we"ird \ ünet`, "id", `e"t`},
	} {
		for _, mac := range []net.HardwareAddr{nil, {2, 0, 0, 0, 0, 1}} {
			c := o.comment(mac)
			if len(c) > maxComment || strings.ContainsAny(c, "\"\\\n") {
				t.Errorf("comment %q of %d bytes", c, len(c))
			}
			got := parseOwner(c)
			if got.Device != o.Device || got.Network != networkWord(o.Network) {
				t.Errorf("comment %q is read as %+v", c, got)
			}
			if parseMAC(c).String() != mac.String() {
				t.Errorf("comment %q has MAC %s, want %s", c, parseMAC(c), mac)
			}
		}
	}
	if networkWord(long+"a") == networkWord(long+"b") {
		t.Error("two long names have the same word")
	}
	for _, c := range []string{"", "zl0", "two words", "made by hand"} {
		if o := parseOwner(c); c != "made by hand" && o != (Owner{}) {
			t.Errorf("comment %q is read as %+v", c, o)
		}
	}
}

// nft must accept the longest comment that is written.
func TestLimitOfCommentsIsNfts(t *testing.T) {
	newRuleset(t)
	for _, c := range []struct {
		length int
		ok     bool
	}{{maxComment, true}, {maxComment + 1, false}} {
		comment := strings.Repeat("x", c.length)
		err := exec.Command("nft", `add element inet zipline source4 { 10.9.9.9 comment "`+comment+`" }`).Run()
		if (err == nil) != c.ok {
			t.Errorf("nft with a comment of %d bytes: %v", c.length, err)
		}
	}
}
