// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"strings"
	"testing"
)

func TestLeaseContentSaysWhoHoldsIt(t *testing.T) {
	for _, tt := range []struct {
		name, content string
		owner         Owner
		ok            bool
	}{
		{"as host-local writes it", "c1\r\neth0", Owner{"c1", "eth0"}, true},
		{"with a line break at the end", "c1\r\neth0\r\n", Owner{"c1", "eth0"}, true},
		{"with a bare line feed", "c1\neth0\n", Owner{"c1", "eth0"}, true},
		{"in the older format", "c1", Owner{"c1", ""}, true},
		{"in the older format with a line break", "c1\r\n", Owner{"c1", ""}, true},
		{"in the older format with blanks", "  c1 \n", Owner{"c1", ""}, true},
		{"empty", "", Owner{}, false},
		{"of blanks", " \r\n\t", Owner{}, false},
		{"of NULs", strings.Repeat("\x00", 20), Owner{}, false},
	} {
		if owner, ok := parseLease([]byte(tt.content)); owner != tt.owner || ok != tt.ok {
			t.Errorf("%s: got %q, %t", tt.name, owner, ok)
		}
	}
}

func TestOnlyHostLocalsSpellingOfAnAddressIsALease(t *testing.T) {
	for name, want := range map[string]bool{
		"10.0.0.2": true, "2001:db8::2": true, "::1": true,
		"lock": false, "last_reserved_ip.0": false, ".zipline": false, "10.0.0.2.tmp": false, "": false,
		"2001:DB8::2": false, "2001:db8:0::2": false, "::ffff:10.0.0.2": false, "fe80::1%eth0": false, "10.0.0.02": false,
	} {
		if _, got := leaseName(name); got != want {
			t.Errorf("%q: got %t, want %t", name, got, want)
		}
	}
}

func TestOwnersThatALeaseCannotNameAreRefused(t *testing.T) {
	for _, owner := range []Owner{{"", "eth0"}, {"a\r\nb", "eth0"}, {"a\nb", ""}, {"a\x00", "eth0"}} {
		if owner.validate() == nil {
			t.Errorf("%q is accepted", owner)
		}
	}
}

func TestValidOwnersMatchLeasesOfBothFormats(t *testing.T) {
	valid := ValidOwners([]Owner{{"c1", "eth0"}, {"c2", "eth1"}})
	for owner, want := range map[Owner]bool{
		{"c1", "eth0"}: true, {"c1", "eth1"}: false, {"c1", ""}: true, {"c2", ""}: true, {"c3", ""}: false, {"c3", "eth0"}: false,
	} {
		if got := valid(owner); got != want {
			t.Errorf("%q: got %t, want %t", owner, got, want)
		}
	}
	if none := ValidOwners(nil); none(Owner{"c1", "eth0"}) || none(Owner{"c1", ""}) {
		t.Error("an empty list calls an owner valid")
	}
}

func FuzzParseLease(f *testing.F) {
	f.Add([]byte("c1\r\neth0"))
	f.Add([]byte("c1\n"))
	f.Add([]byte{0, 0, 0})
	f.Fuzz(func(t *testing.T, content []byte) {
		owner, ok := parseLease(content)
		if ok != (owner.ContainerID != "") {
			t.Fatalf("owner %q, %t", owner, ok)
		}
		if owner != owner.normal() {
			t.Fatalf("owner %q has blanks around a name", owner)
		}
		// What a lease file can name is written and read back unchanged.
		if !ok || owner.validate() != nil || strings.ContainsAny(owner.IfName, "\x00") || strings.ContainsAny(owner.ContainerID, "\x00") {
			return
		}
		if again, ok := parseLease(formatLease(owner)); !ok || again != owner {
			t.Fatalf("%q was written and is read as %q", owner, again)
		}
	})
}
