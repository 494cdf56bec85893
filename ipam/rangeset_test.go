// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// mustSets returns the range sets of "ranges" in JSON.
func mustSets(tb testing.TB, ranges string) []rangeSet {
	tb.Helper()
	return mustConfig(tb, ipamConfig(`{"ranges":`+ranges+`}`), "").sets
}

func TestAddressesAreTriedInTheOrderOfHostLocal(t *testing.T) {
	for _, tt := range []struct{ name, ranges, last, want string }{
		{"from the start without a last address", `[[{"subnet":"10.0.0.0/29"}]]`, "", "2 3 4 5 6"},
		{"behind the last address and around", `[[{"subnet":"10.0.0.0/29"}]]`, "10.0.0.4", "5 6 2 3 4"},
		{"around from the end", `[[{"subnet":"10.0.0.0/29"}]]`, "10.0.0.6", "2 3 4 5 6"},
		{"from the start when the last address is foreign", `[[{"subnet":"10.0.0.0/29"}]]`, "10.0.1.4", "2 3 4 5 6"},
		{"from the start when the last address is of the other family", `[[{"subnet":"10.0.0.0/29"}]]`, "::1", "2 3 4 5 6"},
		{"behind the gateway when it was the last", `[[{"subnet":"10.0.0.0/29","gateway":"10.0.0.3"}]]`, "10.0.0.3", "4 5 6 1 2"},
		{"with a gateway in the middle", `[[{"subnet":"10.0.0.0/29","gateway":"10.0.0.4"}]]`, "10.0.0.3", "5 6 1 2 3"},
		{"with the broadcast and network address where asked for", `[[{"subnet":"10.0.0.0/30","rangeStart":"10.0.0.0","rangeEnd":"10.0.0.3"}]]`, "", "0 2 3"},
		{"nothing when the gateway is all there is", `[[{"subnet":"10.0.0.0/29","rangeStart":"10.0.0.3","rangeEnd":"10.0.0.3","gateway":"10.0.0.3"}]]`, "", ""},
		{"the only address again", `[[{"subnet":"10.0.0.0/29","rangeStart":"10.0.0.3","rangeEnd":"10.0.0.3"}]]`, "10.0.0.3", "3"},
		{"from range to range", `[[{"subnet":"10.0.0.0/29","rangeEnd":"10.0.0.3"},{"subnet":"10.0.0.8/29","rangeStart":"10.0.0.13"}]]`, "10.0.0.13", "14 2 3 13"},
		{"with another range's gateway, as host-local does", `[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.4","rangeEnd":"10.0.0.5","gateway":"10.0.0.9"},
			{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.8","rangeEnd":"10.0.0.10"}]]`, "10.0.0.5", "8 9 10 4 5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			last, _ := parseAddr(tt.last)
			var got []string
			for addr := range mustSets(t, tt.ranges)[0].after(last) {
				got = append(got, strings.TrimPrefix(addr.String(), "10.0.0."))
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %s, want %s", strings.Join(got, " "), tt.want)
			}
		})
	}
}

func TestSizeIsTheNumberOfAddressesTried(t *testing.T) {
	for _, ranges := range []string{
		`[[{"subnet":"10.0.0.0/30"}]]`,
		`[[{"subnet":"10.0.0.0/20"}]]`,
		`[[{"subnet":"10.0.0.0/24","gateway":"10.0.0.254"}]]`,
		`[[{"subnet":"10.0.0.0/24","gateway":"10.0.0.255"}]]`,
		`[[{"subnet":"10.0.0.0/24","gateway":"10.1.0.1"},{"subnet":"10.0.2.0/24","rangeStart":"10.0.2.9"}]]`,
		`[[{"subnet":"2001:db8::/112"}]]`,
		`[[{"subnet":"2001:db8::/32","rangeStart":"2001:db8::ffff:ffff:ffff:fff0","rangeEnd":"2001:db8:0:1::5","gateway":"2001:db8:0:1::"}]]`,
	} {
		set := mustSets(t, ranges)[0]
		var n uint64
		for range set.after(netip.Addr{}) {
			n++
		}
		if got := set.size(); got != n {
			t.Errorf("%s: size %d, but %d addresses are tried", ranges, got, n)
		}
	}
}

func TestSizeOfManyAddressesIsBounded(t *testing.T) {
	for ranges, want := range map[string]uint64{
		`[[{"subnet":"2001:db8::/64"}]]`:                                                    math.MaxUint64 - 1, // without :: and the gateway
		`[[{"subnet":"2001:db8::/64","rangeStart":"2001:db8::"}]]`:                          math.MaxUint64,
		`[[{"subnet":"2001:db8::/63"}]]`:                                                    math.MaxUint64,
		`[[{"subnet":"::/0"}]]`:                                                             math.MaxUint64,
		`[[{"subnet":"2001:db8::/64"},{"subnet":"2001:db9::/64"}]]`:                         math.MaxUint64,
		`[[{"subnet":"10.0.0.0/8"},{"subnet":"11.0.0.0/8"}]]`:                               2 * (1<<24 - 3),
		`[[{"subnet":"0.0.0.0/0","rangeEnd":"255.255.255.255"}]]`:                           1<<32 - 2,
		`[[{"subnet":"0.0.0.0/0","rangeStart":"255.255.255.254"}]]`:                         1,
		`[[{"subnet":"ffff::/16","rangeStart":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"}]]`: 2,
	} {
		if got := mustSets(t, ranges)[0].size(); got != want {
			t.Errorf("%s: got %d, want %d", ranges, got, want)
		}
	}
}

func TestTheLastAddressOfAllDoesNotOverflow(t *testing.T) {
	for _, ranges := range []string{
		`[[{"subnet":"255.255.255.248/29","rangeEnd":"255.255.255.255"}]]`,
		`[[{"subnet":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff8/125"}]]`,
	} {
		set := mustSets(t, ranges)[0]
		var got []netip.Addr
		for addr := range set.after(set[0].end.Prev()) {
			got = append(got, addr)
		}
		if len(got) != 6 || got[0] != set[0].end || slices.ContainsFunc(got, func(a netip.Addr) bool { return !a.IsValid() }) {
			t.Errorf("%s: got %v", ranges, got)
		}
	}
}
