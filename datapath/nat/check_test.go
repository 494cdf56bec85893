// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"net"
	"regexp"
	"strings"
	"testing"
)

func TestCheckNamesWhatIsWrong(t *testing.T) {
	o := owner("zl0000000000001", "net")
	opts := Options{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Isolated: prefixes("10.1.0.2/16", "fd00:9::9/64")}
	plain, random, snat := source("10.1.0.2/16"), source("fd00::2/64"), source("10.1.0.3/16")
	plain.Exempt = prefixes("192.168.0.0/16")
	random.Action = MasqueradeFullyRandom
	snat.Action, snat.To = SNAT, addr("192.0.2.7")
	sources := []Source{plain, random, snat}
	for _, c := range []struct {
		name   string
		damage []string // nft commands
		want   []string // in the message
	}{
		{"the table deleted", []string{"delete table inet zipline"}, []string{"table inet zipline is missing"}},
		{"the version marker deleted", []string{"delete chain inet zipline " + versionChain}, []string{"another version"}},
		{"all rules flushed", []string{"flush table inet zipline"},
			[]string{`"masquerade" of chain translate is missing`, "fib saddr", "ct state invalid", "nft flush table"}},
		{"a chain flushed", []string{"flush chain inet zipline postrouting"},
			[]string{`rule "ip saddr @source4 goto translate" of chain postrouting is missing`}},
		{"a policy changed", []string{"chain inet zipline forward { policy drop; }"},
			[]string{"chain forward has policy drop"}},
		{"a foreign rule", []string{"insert rule inet zipline forward accept"},
			[]string{"chain forward has a rule that is not zipline's (number 1)"}},
		{"a rule replaced", []string{"flush chain inet zipline prerouting",
			"add rule inet zipline prerouting iifgroup != 31340 iifgroup != 31341 accept",
			"add rule inet zipline prerouting iifname . ip saddr @address4 accept",
			"add rule inet zipline prerouting iifname . ip6 saddr @address6 accept",
			"add rule inet zipline prerouting iifname @macspoofchk iifname . ether saddr != @mac counter drop",
			"add rule inet zipline prerouting iifgroup 31340 accept",
			"add rule inet zipline prerouting ip6 saddr fe80::/10 accept",
			"add rule inet zipline prerouting fib saddr . iif oif missing counter drop"},
			[]string{`rule "iifgroup 31341 accept" of chain prerouting is missing or changed`, "number 5"}},
		{"rules in another order", []string{"flush chain inet zipline postrouting",
			"add rule inet zipline postrouting ip6 saddr @source6 goto translate",
			"add rule inet zipline postrouting ip saddr @source4 goto translate"},
			[]string{"chain postrouting has its rules in another order"}},
		{"an element deleted", []string{"delete element inet zipline source4 { 10.1.0.2 }"},
			[]string{"element 10.1.0.2 of source4 is missing"}},
		{"a random element deleted", []string{"delete element inet zipline random6 { fd00::2 }"},
			[]string{"element fd00::2 of random6 is missing"}},
		{"an action too many", []string{`add element inet zipline random4 { 10.1.0.2 comment "zl0000000000001 net x/eth0" }`},
			[]string{"element 10.1.0.2 of random4 is there although"}},
		{"another address to translate to", []string{"delete element inet zipline snat4 { 10.1.0.3 }",
			`add element inet zipline snat4 { 10.1.0.3 comment "zl0000000000001 net x/eth0" : 192.0.2.8 }`},
			[]string{"element 10.1.0.3 of snat4 translates to 192.0.2.8"}},
		{"another's element", []string{"delete element inet zipline source4 { 10.1.0.2 }",
			`add element inet zipline source4 { 10.1.0.2 comment "zlother net x/eth0" }`},
			[]string{`element 10.1.0.2 of source4 belongs to "zlother net x/eth0"`}},
		{"an exempt prefix deleted", []string{"delete element inet zipline exempt4 { 10.1.0.0/16 . 192.168.0.0/16 }"},
			[]string{"192.168.0.0-192.168.255.255 of exempt4 is missing"}},
		{"an isolated address deleted", []string{"delete element inet zipline isolated4 { 10.1.0.2 }"},
			[]string{"element 10.1.0.2 of isolated4 is missing"}},
		{"an isolated address too many", []string{`add element inet zipline isolated6 { fd00::2 comment "zl0000000000001 net x/eth0" }`},
			[]string{"element fd00::2 of isolated6 is there although"}},
		{"another's isolated address", []string{"delete element inet zipline isolated6 { fd00:9::9 }",
			`add element inet zipline isolated6 { fd00:9::9 comment "zlother net x/eth0" }`},
			[]string{`element fd00:9::9 of isolated6 belongs to "zlother net x/eth0"`}},
		{"a segment deleted", []string{"delete element inet zipline segment4 { 10.1.0.0/16 . 10.1.0.0/16 }"},
			[]string{"10.1.0.0-10.1.255.255 . 10.1.0.0-10.1.255.255 of segment4 is missing"}},
		{"a segment in parts that lack one", []string{"delete element inet zipline segment6 { fd00:9::/64 . fd00:9::/64 }",
			"add element inet zipline segment6 { fd00:9::/65 . fd00:9::/64 }"},
			[]string{"element fd00:9:0:0:8000::-fd00:9::ffff:ffff:ffff:ffff . fd00:9::-fd00:9::ffff:ffff:ffff:ffff of segment6 is missing"}},
		{"the isolation replaced", []string{"flush chain inet zipline forward",
			"add rule inet zipline forward ct state established accept",
			"add rule inet zipline forward ip saddr @isolated4 ip daddr @isolated4 ip saddr . ip daddr @exempt4 counter drop",
			"add rule inet zipline forward ip6 saddr @isolated6 ip6 daddr @isolated6 ip6 saddr . ip6 daddr @segment6 counter drop",
			"add rule inet zipline forward ct state invalid ip saddr @source4 goto untranslated",
			"add rule inet zipline forward ct state invalid ip6 saddr @source6 goto untranslated"},
			[]string{`ip saddr . ip daddr @segment4 counter drop" of chain forward is missing or changed`, "number 2"}},
		{"the MAC deleted", []string{`delete element inet zipline mac { "zl0000000000001" . 02:00:00:00:00:01 }`},
			[]string{"element zl0000000000001 . 02:00:00:00:00:01 of mac is missing"}},
		{"the device deleted from the MAC check", []string{`delete element inet zipline macspoofchk { "zl0000000000001" }`},
			[]string{"element zl0000000000001 of macspoofchk is missing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRuleset(t)
			mustAdd(t, r, o, opts, sources...)
			if err := r.Check(o, sources, opts); err != nil {
				t.Fatalf("before: %v", err)
			}
			for _, command := range c.damage {
				nft(t, command)
			}
			err := r.Check(o, sources, opts)
			var wrong *CheckError
			if !errors.As(err, &wrong) {
				t.Fatalf("Check: %v, want a CheckError", err)
			}
			for _, want := range append(c.want, "to mend: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("message lacks %q:\n%v", want, err)
				}
			}
		})
	}
}

// What Check advises must help.
func TestMendingAsAdvised(t *testing.T) {
	r := newRuleset(t)
	o, s := owner("zl0000000000001", "net"), source("10.1.0.2/16")
	mustAdd(t, r, o, Options{}, s)
	good := listing(t)
	nft(t, "insert rule inet zipline forward accept")
	nft(t, "flush table inet zipline")
	if err := r.Add(o, []Source{s}, Options{}); !errors.Is(err, ErrNoTable) {
		t.Fatalf("Add after a flush: %v, want ErrNoTable", err)
	}
	if err := r.Install(); err != nil {
		t.Fatal(err)
	}
	if again := listing(t); again != good {
		t.Errorf("table after mending:\n%s", again)
	}
}

func TestCountersDoNotMatterToCheck(t *testing.T) {
	r := newRuleset(t)
	o := owner("zl0000000000001", "net")
	mustAdd(t, r, o, Options{})
	text := regexp.MustCompile(`counter packets 0 bytes 0`).ReplaceAllString(listing(t), "counter packets 7 bytes 700")
	restore(t, text)
	if !strings.Contains(listing(t), "packets 7") {
		t.Fatal("counters were not restored")
	}
	if err := r.Check(o, nil, Options{}); err != nil {
		t.Error(err)
	}
}
