// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func mustConfig(tb testing.TB, stdin, args string) *config {
	tb.Helper()
	c, err := parseConfig([]byte(stdin), args)
	if err != nil {
		tb.Fatalf("parse %s with CNI_ARGS %q: %v", stdin, args, err)
	}
	return c
}

func ipamConfig(ipam string) string {
	return `{"cniVersion":"1.0.0","name":"net","type":"bridge","ipam":` + ipam + `}`
}

func TestRangeSetsAreInTheOrderOfHostLocal(t *testing.T) {
	c := mustConfig(t, `{
		"cniVersion": "0.3.1", "name": "net",
		"runtimeConfig": {"irrelevant": "a", "ipRanges": [[{"subnet": "12.1.3.0/24"}]]},
		"ipam": {
			"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.20", "gateway": "10.1.2.30",
			"ranges": [[{"subnet": "11.1.2.0/24", "rangeStart": "11.1.2.9", "gateway": "11.1.2.30"}, {"subnet": "11.1.3.0/25"}],
				[{"subnet": "2001:db8::/64"}]]
		}}`, "")
	var got []string
	for _, set := range c.sets {
		for _, r := range set {
			got = append(got, r.subnet.String()+" "+r.String()+" "+r.gateway.String())
		}
		got = append(got, "-")
	}
	want := []string{
		"12.1.3.0/24 12.1.3.1-12.1.3.254 12.1.3.1", "-",
		"10.1.2.0/24 10.1.2.9-10.1.2.20 10.1.2.30", "-",
		"11.1.2.0/24 11.1.2.9-11.1.2.254 11.1.2.30", "11.1.3.0/25 11.1.3.1-11.1.3.126 11.1.3.1", "-",
		"2001:db8::/64 2001:db8::1-2001:db8::ffff:ffff:ffff:ffff 2001:db8::1", "-",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestKeysMatchWithoutRegardToCase(t *testing.T) {
	c := mustConfig(t, `{"CNIVERSION":"1.0.0","NAME":"net","RuntimeConfig":{"IPs":["10.0.0.9/16"],"IPRANGES":[[{"SUBNET":"10.0.0.0/24"}]]},
		"IPAM":{"DataDir":"/d","RESOLVCONF":"/r","Routes":[{"DST":"0.0.0.0/0","Gw":"10.0.0.1"}]}}`, "")
	if c.name != "net" || c.dataDir != "/d" || c.resolvConf != "/r" || len(c.sets) != 1 || len(c.routes) != 1 || len(c.requests) != 1 {
		t.Errorf("a key was not understood: %+v", c)
	}
}

func TestRoutesAreCarriedThroughWithEveryKey(t *testing.T) {
	c := mustConfig(t, ipamConfig(`{"subnet":"10.0.0.0/24","routes":[
		{"dst":"0.0.0.0/0"}, {"dst":"10.9.8.7/8","gw":"10.0.0.2","mtu":1400,"advmss":1360,"priority":7,"table":100,"scope":0},
		{"dst":"::/0","gw":"fe80::1"}]}`), "")
	table, scope := 100, 0
	want := []Route{
		{Dst: netip.MustParsePrefix("0.0.0.0/0")},
		{
			Dst: netip.MustParsePrefix("10.9.8.7/8"), GW: netip.MustParseAddr("10.0.0.2"),
			MTU: 1400, AdvMSS: 1360, Priority: 7, Table: &table, Scope: &scope,
		},
		{Dst: netip.MustParsePrefix("::/0"), GW: netip.MustParseAddr("fe80::1")},
	}
	if !reflect.DeepEqual(c.routes, want) {
		t.Errorf("got %+v, want %+v", c.routes, want)
	}
}

func TestRequestedAddressesAreCollectedOnceEach(t *testing.T) {
	c := mustConfig(t, `{"name":"net","cniVersion":"1.0.0","args":{"cni":{"ips":["10.0.0.5","10.0.0.6/24"]}},
		"runtimeConfig":{"ips":["10.0.0.7","2001:db8::1/64","::ffff:10.0.0.5"]},"ipam":{"subnet":"10.0.0.0/24"}}`,
		"IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.0.0.4/24")
	var got []string
	for _, r := range c.requests {
		got = append(got, r.addr.String()+" "+r.key)
	}
	want := []string{
		"10.0.0.4 CNI_ARGS IP", "10.0.0.5 args.cni.ips[0]", "10.0.0.6 args.cni.ips[1]",
		"10.0.0.7 runtimeConfig.ips[0]", "2001:db8::1 runtimeConfig.ips[1]",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// badConfigs are refused by this package and by host-local.
var badConfigs = []struct {
	name, stdin, args, key, msg string
}{
	{"no JSON", `{`, "", "", "unexpected end"},
	{"no object", `[]`, "", "", "want an object"},
	{"no ipam", `{"name":"net"}`, "", "ipam", "missing"},
	{"ipam of the wrong type", `{"name":"net","ipam":7}`, "", "ipam", "want an object, not a JSON number"},
	{"no name", `{"ipam":{"subnet":"10.0.0.0/24"}}`, "", "name", "missing"},
	{"a name that leaves the directory", `{"name":"../x","ipam":{"subnet":"10.0.0.0/24"}}`, "", "name", "invalid"},
	{"a name that is a number", `{"name":5,"ipam":{"subnet":"10.0.0.0/24"}}`, "", "name", "want a string"},
	{"no ranges", ipamConfig(`{}`), "", "ipam.ranges", "no IP ranges specified"},
	{"a range without subnet", ipamConfig(`{"rangeStart":"10.0.0.1"}`), "", "ipam.ranges", "no IP ranges"},
	{"ranges of the wrong type", ipamConfig(`{"ranges":{}}`), "", "ipam.ranges", "want an array"},
	{"ranges that are not nested", ipamConfig(`{"ranges":[{"subnet":"10.0.0.0/24"}]}`), "", "ipam.ranges", "want an array"},
	{"an empty range set", ipamConfig(`{"ranges":[[]]}`), "", "ipam.ranges[0]", "empty range set"},
	{"a range set member without subnet", ipamConfig(`{"ranges":[[{"subnet":"10.0.0.0/24"},{}]]}`), "", "ipam.ranges[0][1].subnet", "missing"},
	{"a subnet of the wrong type", ipamConfig(`{"subnet":{}}`), "", "ipam.subnet", "not a JSON object"},
	{"a subnet that is null", ipamConfig(`{"subnet":null,"ranges":[[{"subnet":"10.0.0.0/24"}]]}`), "", "ipam.subnet", "null"},
	{"a subnet without length", ipamConfig(`{"subnet":"10.0.0.0"}`), "", "ipam.subnet", "invalid CIDR"},
	{"a subnet with host bits", ipamConfig(`{"subnet":"192.0.2.12/24"}`), "", "ipam.subnet", "the network address is 192.0.2.0"},
	{"an IPv6 subnet with host bits", ipamConfig(`{"subnet":"2001:db8:24:19ff::/63"}`), "", "ipam.subnet", "2001:db8:24:19fe::"},
	{"a subnet that is too small", ipamConfig(`{"subnet":"10.0.0.0/31"}`), "", "ipam.subnet", "too small"},
	{"an IPv6 subnet that is too small", ipamConfig(`{"subnet":"2001:db8::/127"}`), "", "ipam.subnet", "too small"},
	{"an IPv4 subnet with an IPv6 length", ipamConfig(`{"subnet":"::ffff:10.0.0.0/120"}`), "", "ipam.subnet", "IPv6 prefix length"},
	{"a start outside of the subnet", ipamConfig(`{"subnet":"10.0.0.0/24","rangeStart":"10.0.1.1"}`), "", "ipam.rangeStart", "not in network"},
	{"an end outside of the subnet", ipamConfig(`{"subnet":"10.0.0.0/24","rangeEnd":"10.0.1.1"}`), "", "ipam.rangeEnd", "not in network"},
	{"an end of the other family", ipamConfig(`{"subnet":"10.0.0.0/24","rangeEnd":"::1"}`), "", "ipam.rangeEnd", "not in network"},
	{"an end before the start", ipamConfig(`{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"}`), "", "ipam.rangeStart", "comes after"},
	{"an end before the default start", ipamConfig(`{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.0"}`), "", "ipam.rangeStart", "comes after"},
	{"a start that is no address", ipamConfig(`{"subnet":"10.0.0.0/24","rangeStart":"x"}`), "", "ipam.rangeStart", `invalid IP address "x"`},
	{"a start that is no address without a subnet", ipamConfig(`{"rangeStart":"x","ranges":[[{"subnet":"10.0.0.0/24"}]]}`), "", "ipam.rangeStart", "invalid"},
	{"an end that is a number", ipamConfig(`{"subnet":"10.0.0.0/24","rangeEnd":7}`), "", "ipam.rangeEnd", "not a JSON number"},
	{"a gateway that is a list", ipamConfig(`{"subnet":"10.0.0.0/24","gateway":[10,0,0,1]}`), "", "ipam.gateway", "not a JSON array"},
	{"a gateway with a zone", ipamConfig(`{"subnet":"fe80::/64","gateway":"fe80::1%eth0"}`), "", "ipam.gateway", "invalid IP address"},
	{"mixed families", ipamConfig(`{"ranges":[[{"subnet":"10.1.0.0/22"},{"subnet":"2001:db8:5::/64"}]]}`), "", "ipam.ranges[0][1].subnet", "mixed"},
	{"an overlap in a range set", ipamConfig(`{"ranges":[[{"subnet":"10.1.0.0/22"},{"subnet":"10.1.2.0/24"}]]}`), "", "ipam.ranges[0][1]", "10.1.0.1-10.1.3.254 and 10.1.2.1-10.1.2.254 overlap"},
	{"an overlap of range sets", ipamConfig(`{"ranges":[[{"subnet":"10.1.0.0/22"}],[{"subnet":"10.1.2.0/24"}]]}`), "", "ipam.ranges", "range set 0 (10.1.0.1-10.1.3.254) overlaps with 1"},
	{"an overlap with the runtime's range", `{"name":"net","cniVersion":"1.0.0","runtimeConfig":{"ipRanges":[[{"subnet":"10.0.0.0/24"}]]},"ipam":{"subnet":"10.0.0.0/16"}}`, "", "ipam.ranges", "overlaps"},
	{"two addresses of a family in 0.2.0", `{"name":"net","cniVersion":"0.2.0","ipam":{"ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"11.1.2.0/24"}]]}}`, "", "ipam.ranges", "CNI version 0.2.0 does not support more than 1 address per family"},
	{"two addresses of a family without version", `{"name":"net","ipam":{"ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"11.1.2.0/24"}]]}}`, "", "ipam.ranges", "does not support"},
	{"a route without dst as a string", ipamConfig(`{"subnet":"10.0.0.0/24","routes":[{"dst":1}]}`), "", "ipam.routes[0].dst", "not a JSON number"},
	{"a route whose dst is no CIDR", ipamConfig(`{"subnet":"10.0.0.0/24","routes":[{"dst":"0.0.0.0/0"},{"dst":"default"}]}`), "", "ipam.routes[1].dst", "invalid CIDR"},
	{"a route whose gateway is no address", ipamConfig(`{"subnet":"10.0.0.0/24","routes":[{"dst":"0.0.0.0/0","gw":"a"}]}`), "", "ipam.routes[0].gw", "invalid IP address"},
	{"a route whose MTU is a string", ipamConfig(`{"subnet":"10.0.0.0/24","routes":[{"dst":"0.0.0.0/0","mtu":"9"}]}`), "", "ipam.routes.mtu", "want an integer"},
	{"a data directory that is a list", ipamConfig(`{"subnet":"10.0.0.0/24","dataDir":[]}`), "", "ipam.dataDir", "want a string, not a JSON array"},
	{"a resolvConf that is a bool", ipamConfig(`{"subnet":"10.0.0.0/24","resolvConf":true}`), "", "ipam.resolvConf", "want a string, not a JSON bool"},
	{"a request that is no address", `{"name":"net","runtimeConfig":{"ips":["10.0.0.3","x"]},"ipam":{"subnet":"10.0.0.0/24"}}`, "", "runtimeConfig.ips[1]", "invalid"},
	{"a request that is a number", `{"name":"net","runtimeConfig":{"ips":[3]},"ipam":{"subnet":"10.0.0.0/24"}}`, "", "runtimeConfig.ips[0]", "not a JSON number"},
	{"an empty request", `{"name":"net","args":{"cni":{"ips":[""]}},"ipam":{"subnet":"10.0.0.0/24"}}`, "", "args.cni.ips[0]", "invalid"},
	{"a runtimeConfig that is a list", `{"name":"net","runtimeConfig":[],"ipam":{"subnet":"10.0.0.0/24"}}`, "", "runtimeConfig", "want an object"},
	{"an argument that is no pair", ipamConfig(`{"subnet":"10.0.0.0/24"}`), "IP=10.0.0.3;", "CNI_ARGS", "invalid pair"},
	{"an argument with two equal signs", ipamConfig(`{"subnet":"10.0.0.0/24"}`), "IgnoreUnknown=1;A=B=C", "CNI_ARGS", "invalid pair"},
	{"an unknown argument", ipamConfig(`{"subnet":"10.0.0.0/24"}`), "ip=10.0.0.3", "CNI_ARGS", "unknown args"},
	{"an address list in an argument", ipamConfig(`{"subnet":"10.0.0.0/24"}`), "IP=10.0.0.3,10.0.0.4", "CNI_ARGS IP", "invalid IP address"},
	{"a bool that is none", ipamConfig(`{"subnet":"10.0.0.0/24"}`), "IgnoreUnknown=yes", "CNI_ARGS IgnoreUnknown", "want true or false"},
}

func TestConfigurationsThatAreRefusedNameTheKey(t *testing.T) {
	for _, tt := range badConfigs {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseConfig([]byte(tt.stdin), tt.args)
			var configError *ConfigError
			if !errors.As(err, &configError) {
				t.Fatalf("got %v, want a ConfigError", err)
			}
			if configError.Key != tt.key || !strings.Contains(configError.Msg, tt.msg) {
				t.Errorf("got key %q, message %q; want key %q, message with %q", configError.Key, configError.Msg, tt.key, tt.msg)
			}
		})
	}
}

func TestWhatHostLocalStumblesOverIsRefused(t *testing.T) {
	for name, stdin := range map[string]string{
		"a null request":                  `{"name":"net","runtimeConfig":{"ips":[null]},"ipam":{"subnet":"10.0.0.0/24"}}`,
		"a null route":                    ipamConfig(`{"subnet":"10.0.0.0/24","routes":[null]}`),
		"a route to nowhere":              ipamConfig(`{"subnet":"10.0.0.0/24","routes":[{}]}`),
		"a range behind the last address": ipamConfig(`{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.255"}`),
	} {
		var configError *ConfigError
		if _, err := parseConfig([]byte(stdin), ""); !errors.As(err, &configError) {
			t.Errorf("%s: got %v, want a ConfigError", name, err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, tt := range badConfigs {
		f.Add([]byte(tt.stdin), tt.args)
	}
	f.Add([]byte(ipamConfig(`{"ranges":[[{"subnet":"10.0.0.0/8"},{"subnet":"11.0.0.0/30"}],[{"subnet":"::/0"}]],"routes":[{"dst":"::/0"}]}`)), "IP=10.0.0.3")
	f.Fuzz(func(t *testing.T, stdin []byte, args string) {
		c, err := parseConfig(stdin, args)
		if err != nil {
			var configError *ConfigError
			if !errors.As(err, &configError) {
				t.Fatalf("got %T, want a ConfigError", err)
			}
			return
		}
		for _, set := range c.sets {
			for _, r := range set {
				if r.end.Less(r.start) || !r.subnet.Contains(r.start) || !r.subnet.Contains(r.end) || !r.gateway.IsValid() {
					t.Fatalf("accepted range %s of %s with gateway %s", r.String(), r.subnet, r.gateway)
				}
			}
			first := 0
			for addr, r := range set.after(netip.Addr{}) {
				if !r.contains(addr) || addr == r.gateway {
					t.Fatalf("range %s yields %s", r.String(), addr)
				}
				if first++; first > 100 {
					break
				}
			}
		}
		for _, r := range c.requests {
			if !r.addr.IsValid() || r.addr.Is4In6() || r.key == "" {
				t.Fatalf("requested %v by %q", r.addr, r.key)
			}
		}
	})
}

func FuzzParseArgs(f *testing.F) {
	f.Add("IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.0.0.4/24")
	f.Add("IP=2001:db8::1")
	f.Add("IP=;IgnoreUnknown=False")
	f.Fuzz(func(t *testing.T, args string) {
		addr, err := parseArgs(args)
		if err != nil && addr.IsValid() {
			t.Fatalf("address %s with error %v", addr, err)
		}
		if addr.Is4In6() || addr.Zone() != "" {
			t.Fatalf("address %s is not canonical", addr)
		}
	})
}
