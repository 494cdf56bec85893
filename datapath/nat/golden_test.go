// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/*.nft from what the kernel has")

func TestTableAsNftPrintsIt(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	long := owner("zl0123456789abc", strings.Repeat("a-very-long-network-name-", 4))
	long.ContainerID = strings.Repeat("0123456789abcdef", 4)
	snat := source("10.88.0.4/16")
	snat.Action, snat.To = SNAT, addr("192.0.2.7")
	snat6 := source("fd00:88::4/64")
	snat6.Action, snat6.To = SNAT, addr("2001:db8::7")
	random, random6 := source("10.88.0.3/16"), source("fd00:88::3/64")
	random.Action, random6.Action = MasqueradeFullyRandom, MasqueradeFullyRandom
	exempt, exempt6 := source("10.89.0.2/24"), source("fd00:89::2/64")
	exempt.Exempt = prefixes("10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16", "203.0.113.5/32")
	exempt6.Exempt = prefixes("fd00::/8", "2001:db8:1::/48", "2001:db8:2::5/128")

	for _, c := range []struct {
		name    string
		owner   Owner
		opts    Options
		sources []Source
	}{
		{name: "empty"},
		{"masquerade4", owner("zl0000000000002", "podman"), Options{}, []Source{source("10.88.0.2/16")}},
		{"masquerade6", owner("zl0000000000002", "podman"), Options{}, []Source{source("fd00:88::2/64")}},
		{"random", owner("zl0000000000003", "podman"), Options{}, []Source{random, random6}},
		{"snat", owner("zl0000000000004", "podman"), Options{}, []Source{snat, snat6}},
		{"exempt", owner("zl0000000000005", "cluster"), Options{}, []Source{exempt, exempt6}},
		{"isolated", owner("zl0000000000007", "podman"),
			Options{Isolated: prefixes("10.90.0.2/24", "fd00:90::2/64")}, nil},
		{"macspoofchk", owner("zl0000000000006", "podman"), Options{MAC: mac}, nil},
		{"long-names", long, Options{MAC: mac}, []Source{source("10.88.0.2/16")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRuleset(t)
			if c.owner.Device != "" {
				mustAdd(t, r, c.owner, c.opts, c.sources...)
			}
			got := listing(t)
			compareGolden(t, c.name, got)
			if err := r.Check(ownerOr(c.owner), c.sources, c.opts); err != nil {
				t.Errorf("check of what was just added: %v", err)
			}
			// What nft prints, nft must be able to read: administrators save
			// and restore whole rulesets.
			file := filepath.Join(t.TempDir(), "ruleset.nft")
			if err := os.WriteFile(file, []byte("flush ruleset\n"+got), 0o600); err != nil {
				t.Fatal(err)
			}
			nft(t, "-f", file)
			if again := listing(t); again != got {
				t.Errorf("listing changed when it was read back:\n%s", again)
			}
			if err := r.Check(ownerOr(c.owner), c.sources, c.opts); err != nil {
				t.Errorf("check of what nft restored: %v", err)
			}
		})
	}
}

func ownerOr(o Owner) Owner {
	if o.Device == "" {
		return owner("zl0", "none")
	}
	return o
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".nft")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("table differs from %s (go test -update writes it):\n%s", file, got)
	}
}

// The version must change with the ruleset, or Add would use another's table.
func TestVersionIsHashOfEmptyTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "empty.nft"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(strings.ReplaceAll(string(text), versionChain, "version")))
	if want := hex.EncodeToString(sum[:])[:len(version)]; version != want {
		t.Errorf("constant version is %q; the ruleset in testdata/empty.nft is %q", version, want)
	}
}

func TestNumberOfRulesIsConstant(t *testing.T) {
	r := newRuleset(t)
	count := func() int {
		n := 0
		rules, err := r.rules()
		if err != nil {
			t.Fatal(err)
		}
		for _, chain := range rules {
			n += len(chain)
		}
		return n
	}
	before := count()
	for i := range 500 {
		o, sources, opts := endpoint(i, 10)
		mustAdd(t, r, o, opts, sources...)
	}
	if after := count(); after != before || before == 0 {
		t.Errorf("%d rules with 500 attachments, %d without", after, before)
	}
}

// endpoint invents the i-th endpoint, dual stack, isolated, with a MAC, in one of
// several networks.
func endpoint(i, networks int) (Owner, []Source, Options) {
	network, host := i%networks, i/networks+2
	v4 := netip.AddrFrom4([4]byte{10, byte(network), byte(host >> 8), byte(host)})
	v6 := netip.AddrFrom16([16]byte{0: 0xfd, 5: byte(network), 14: byte(host >> 8), 15: byte(host)})
	o := Owner{
		Device:      "zl" + hex.EncodeToString([]byte{byte(i >> 16), byte(i >> 8), byte(i)}) + "0000000",
		Network:     "network-" + hex.EncodeToString([]byte{byte(network)}),
		ContainerID: strings.Repeat("0123456789abcdef", 4), IfName: "eth0",
	}
	sources := []Source{
		{Address: v4, Subnet: netip.PrefixFrom(v4, 16).Masked()},
		{Address: v6, Subnet: netip.PrefixFrom(v6, 64).Masked()},
	}
	return o, sources, Options{
		Isolated: []netip.Prefix{netip.PrefixFrom(v4, 16), netip.PrefixFrom(v6, 64)},
		MAC:      net.HardwareAddr{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)},
	}
}
