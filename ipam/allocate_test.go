// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const (
	small = `{"ranges":[[{"subnet":"10.0.0.0/29"}]]}`
	dual  = `{"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"2001:db8::/64"}]]}`
)

func TestAllocateGivesAnAddressOfEveryRangeSet(t *testing.T) {
	dir := t.TempDir()
	resolvConf := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolvConf, []byte("nameserver 192.0.2.3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPool(t, dir, fmt.Sprintf(`{"resolvConf":%q,"routes":[{"dst":"0.0.0.0/0"}],
		"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"2001:db8::/64","gateway":"2001:db8::9"}]]}`, resolvConf))
	result, err := p.Allocate(owner(1))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(result.Addresses, result.Routes[0].Dst, result.DNS.Nameservers, result.Reused)
	if want := "[{10.0.0.2/24 10.0.0.1} {2001:db8::1/64 2001:db8::9}] 0.0.0.0/0 [192.0.2.3] false"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	want := map[string]string{
		"10.0.0.2": "container-1\r\neth0", "2001:db8::1": "container-1\r\neth0",
		"last_reserved_ip.0": "10.0.0.2", "last_reserved_ip.1": "2001:db8::1",
	}
	if got := leaseFiles(t, p.Dir()); !reflect.DeepEqual(got, want) {
		t.Errorf("got files %q, want %q", got, want)
	}
	info, err := os.Stat(filepath.Join(p.Dir(), "10.0.0.2"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("lease has mode %v, %v; want 0600", info.Mode(), err)
	}
	checkSound(t, p)
}

func TestAllocateGoesAroundTheRange(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	for i, want := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"} {
		if got := mustAllocate(t, p, owner(i)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	mustRelease(t, p, owner(1))
	mustRelease(t, p, owner(3))
	for i, want := range []string{"10.0.0.3", "10.0.0.5"} {
		if got := mustAllocate(t, p, owner(10+i)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if err := p.Status(); !errors.Is(err, ErrExhausted) {
		t.Errorf("status of a full pool is %v", err)
	}
	_, err := p.Allocate(owner(20))
	if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "no IP addresses available in range set: 10.0.0.1-10.0.0.6") {
		t.Errorf("got %v, want ErrExhausted", err)
	}
	mustRelease(t, p, owner(0))
	if err := p.Status(); err != nil {
		t.Errorf("status of a pool with a free address is %v", err)
	}
	if got := mustAllocate(t, p, owner(20)); got != "10.0.0.2" {
		t.Errorf("got %s, want the released 10.0.0.2", got)
	}
	checkSound(t, p)
}

func TestAllocateAgainGivesTheSameLeases(t *testing.T) {
	p := newPool(t, t.TempDir(), dual)
	first := mustAllocate(t, p, owner(1))
	before := leaseFiles(t, p.Dir())
	again, err := p.Allocate(owner(1))
	if err != nil {
		t.Fatal(err)
	}
	if addresses(again) != first || !again.Reused {
		t.Errorf("got %s, reused %t; want %s again", addresses(again), again.Reused, first)
	}
	if after := leaseFiles(t, p.Dir()); !reflect.DeepEqual(before, after) {
		t.Errorf("files were %q, are %q", before, after)
	}
	other, err := p.Allocate(Owner{"container-1", "eth1"})
	if err != nil || other.Reused || addresses(other) == first {
		t.Errorf("another interface got %v, %v", other, err)
	}
}

func TestAllocateCompletesWhatIsHeldInPart(t *testing.T) {
	dir := t.TempDir()
	one, both := newPool(t, dir, `{"ranges":[[{"subnet":"10.0.0.0/24"}]]}`), newPool(t, dir, dual)
	mustAllocate(t, one, owner(1))
	result, err := both.Allocate(owner(1))
	if err != nil || addresses(result) != "10.0.0.2 2001:db8::2" || result.Reused {
		t.Errorf("got %+v, %v", result, err)
	}
	checkSound(t, both)
}

func TestAllocateGivesUpWhatNoLongerFits(t *testing.T) {
	dir := t.TempDir()
	before := newPool(t, dir, dual)
	mustAllocate(t, before, owner(1))
	for _, tt := range []struct{ name, ipam, want, args string }{
		{"another subnet", `{"ranges":[[{"subnet":"10.0.1.0/24"}],[{"subnet":"2001:db8::/64"}]]}`, "10.0.1.2 2001:db8::2", ""},
		{"a range set less", `{"ranges":[[{"subnet":"10.0.1.0/24"}]]}`, "10.0.1.2", ""},
		{"another address requested", `{"ranges":[[{"subnet":"10.0.1.0/24"}]]}`, "10.0.1.77", "IP=10.0.1.77"},
		{"the address became the gateway", `{"ranges":[[{"subnet":"10.0.1.0/24","gateway":"10.0.1.77"}]]}`, "10.0.1.78", ""},
	} {
		p := newPoolWith(t, poolConfig(dir, tt.ipam), tt.args)
		if got := mustAllocate(t, p, owner(1)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
		if got := mustLeases(t, p, owner(1)); got != tt.want {
			t.Errorf("%s: holds %s, want %s", tt.name, got, tt.want)
		}
		checkSound(t, p)
	}
}

func TestAllocateKeepsWhatIsHeldWhenItFails(t *testing.T) {
	dir := t.TempDir()
	mustAllocate(t, newPool(t, dir, `{"ranges":[[{"subnet":"10.0.0.0/24"}]]}`), owner(1))
	full := newPool(t, dir, `{"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.0.1.0/24"}],
		[{"subnet":"10.0.2.0/30","rangeEnd":"10.0.2.1"}]]}`)
	if _, err := full.Allocate(owner(1)); !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	if got := mustLeases(t, full, owner(1)); got != "10.0.0.2" {
		t.Errorf("holds %s, want what it held before", got)
	}
	checkSound(t, full)
}

func TestRequestedAddresses(t *testing.T) {
	dir := t.TempDir()
	with := func(args string, extra ...string) *Pool {
		return newPoolWith(t, poolConfig(dir, dual, extra...), args)
	}
	if got := mustAllocate(t, with("", `"args":{"cni":{"ips":["2001:db8::77/64","10.0.0.88"]}},`), owner(1)); got != "10.0.0.88 2001:db8::77" {
		t.Errorf("got %s", got)
	}
	if got := mustAllocate(t, with("IP=10.0.0.99"), owner(2)); got != "10.0.0.99 2001:db8::78" {
		t.Errorf("got %s", got)
	}
	if got := mustAllocate(t, with("IP=10.0.0.99"), owner(2)); got != "10.0.0.99 2001:db8::78" {
		t.Errorf("again: got %s", got)
	}
	for _, tt := range []struct {
		name, args, extra, key string
		sentinel               error
	}{
		{"in use", "", `"runtimeConfig":{"ips":["10.0.0.88"]},`, "", ErrInUse},
		{"the gateway", "", `"runtimeConfig":{"ips":["10.0.0.1"]},`, "runtimeConfig.ips[0]", nil},
		{"in no range", "IP=10.9.9.9", "", "CNI_ARGS IP", nil},
		{"two of a range set", "", `"args":{"cni":{"ips":["10.0.0.50","10.0.0.51"]}},`, "args.cni.ips[1]", nil},
		{"the network address", "", `"runtimeConfig":{"ips":["10.0.0.0"]},`, "runtimeConfig.ips[0]", nil},
	} {
		p := with(tt.args, tt.extra)
		_, err := p.Allocate(owner(3))
		var configError *ConfigError
		switch {
		case tt.sentinel != nil && !errors.Is(err, tt.sentinel):
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.sentinel)
		case tt.sentinel == nil && (!errors.As(err, &configError) || configError.Key != tt.key):
			t.Errorf("%s: got %v, want a ConfigError of %s", tt.name, err, tt.key)
		}
		if got := mustLeases(t, p, owner(3)); got != "" {
			t.Errorf("%s: %s was leased", tt.name, got)
		}
		checkSound(t, p)
	}
}

func TestALeaseWithoutInterfaceBlocksTheContainer(t *testing.T) {
	p := newPool(t, t.TempDir(), dual)
	plant(t, p, "10.0.0.9", "container-1\n", 0)
	if _, err := p.Allocate(owner(1)); !errors.Is(err, ErrDuplicate) {
		t.Errorf("got %v, want ErrDuplicate", err)
	}
	if got := mustAllocate(t, p, owner(2)); got != "10.0.0.2 2001:db8::2" {
		t.Errorf("another container got %s", got)
	}
	if got := mustRelease(t, p, owner(1)); got != "10.0.0.9" {
		t.Errorf("released %q, want 10.0.0.9", got)
	}
	mustAllocate(t, p, owner(1))
}

func TestEmptyFilesAreFree(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	for i := 2; i <= 6; i++ {
		plant(t, p, fmt.Sprintf("10.0.0.%d", i), "", 0)
	}
	if err := p.Status(); err != nil {
		t.Errorf("status: %v", err)
	}
	for i := 2; i <= 6; i++ {
		if got := mustAllocate(t, p, owner(i)); got != fmt.Sprintf("10.0.0.%d", i) {
			t.Errorf("got %s, want 10.0.0.%d", got, i)
		}
		if i == 2 && exists(t, p, "10.0.0.6") {
			t.Error("empty files are left behind")
		}
	}
	checkSound(t, p)
}

func TestAnAddressThatIsNoFileIsTaken(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	if err := os.MkdirAll(filepath.Join(p.Dir(), "10.0.0.2"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := mustAllocate(t, p, owner(1)); got != "10.0.0.3" {
		t.Errorf("got %s, want 10.0.0.3", got)
	}
}

func TestManyTakenAddressesAreSkipped(t *testing.T) {
	p := newPool(t, t.TempDir(), `{"ranges":[[{"subnet":"10.0.0.0/16"}],[{"subnet":"2001:db8::/64"}]]}`)
	for i := range 300 {
		plant(t, p, fmt.Sprintf("10.0.%d.%d", (i+2)/256, (i+2)%256), "other\r\neth0", 0)
		plant(t, p, fmt.Sprintf("2001:db8::%x", i+2), "other\r\neth0", 0)
	}
	if got := mustAllocate(t, p, owner(1)); got != "10.0.1.46 2001:db8::12e" {
		t.Errorf("got %s, want 10.0.1.46 2001:db8::12e", got)
	}
	checkSound(t, p)
}

func TestAnUnusableLastReservedAddressOnlyCostsTheOrder(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	mustAllocate(t, p, owner(1))
	for _, content := range []string{"", "x", "10.0.0.4\n", "10.0.9.4", "::1"} {
		plant(t, p, lastPrefix+"0", content, 0)
		if got := mustAllocate(t, p, owner(2)); got != "10.0.0.3" {
			t.Errorf("after %q: got %s, want 10.0.0.3", content, got)
		}
		mustRelease(t, p, owner(2))
	}
}

func TestDirectoriesThatCannotBeUsedAreIOErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dataDir := range []string{file, "/proc/self/net"} {
		p := newPool(t, dataDir, small)
		_, allocateErr := p.Allocate(owner(1))
		results := map[string]error{"allocate": allocateErr}
		if dataDir == file { // procfs lets root try
			results["status"] = p.Status()
		}
		for verb, err := range results {
			var ioErr *IOError
			if !errors.As(err, &ioErr) || !strings.HasPrefix(ioErr.Path, dataDir) {
				t.Errorf("%s in %s: got %v, want an IOError that names it", verb, dataDir, err)
			}
		}
	}
	p := newPool(t, dir, fmt.Sprintf(`{"resolvConf":%q,"subnet":"10.0.0.0/24"}`, filepath.Join(dir, "missing")))
	if _, err := p.Allocate(owner(1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without resolv.conf: got %v", err)
	}
	if _, err := os.Stat(p.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a failed allocation made the directory: %v", err)
	}
}

func TestOwnersAreRefusedBeforeAnythingIsMade(t *testing.T) {
	p := newPool(t, t.TempDir(), small)
	var configError *ConfigError
	if _, err := p.Allocate(Owner{"", "eth0"}); !errors.As(err, &configError) || configError.Key != "CNI_CONTAINERID" {
		t.Errorf("got %v, want a ConfigError of CNI_CONTAINERID", err)
	}
	if _, err := os.Stat(p.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}
