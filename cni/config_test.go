// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/zipline-cni/zipline/datapath"
)

// baseConfig is a configuration that is right; each case changes one thing.
const baseConfig = `{"cniVersion":"1.0.0","name":"net","type":"zipline","isGateway":true,"ipMasq":true,
	"ipam":{"type":"host-local","subnet":"10.1.0.0/24"}}`

func mutate(t *testing.T, change string) []byte {
	t.Helper()
	var conf, extra map[string]any
	for text, into := range map[string]*map[string]any{baseConfig: &conf, change: &extra} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("decode %s: %v", text, err)
		}
	}
	for key, value := range extra {
		conf[key] = value
	}
	out, err := json.Marshal(conf)
	if err != nil {
		t.Fatalf("encode configuration: %v", err)
	}
	return out
}

func TestConfigRefusesWhatItCannotDo(t *testing.T) {
	cases := []struct {
		name    string
		change  string
		args    string
		code    uint
		details string
	}{
		{"an MTU below the least", `{"mtu":67}`, "", 7, "mtu"},
		{"an MTU above the most", `{"mtu":65536}`, "", 7, "mtu"},
		{"a negative MTU", `{"mtu":-1}`, "", 7, "mtu"},
		{"an MTU that is a string", `{"mtu":"1500"}`, "", 6, "mtu"},
		{"a wrong type within ipam", `{"ipam":{"type":"host-local","inProcess":"no"}}`, "", 6, "ipam.inProcess"},
		{"hairpin and promiscuous mode together", `{"hairpinMode":true,"promiscMode":true}`, "", 7, "hairpinMode"},
		{"an unknown masquerade back end", `{"ipMasqBackend":"ebtables"}`, "", 7, "ipMasqBackend"},
		{"IPAM without a container interface", `{"disableContainerInterface":true}`, "", 7, "disableContainerInterface"},
		{"a VLAN out of range", `{"vlan":4095}`, "", 7, "vlan"},
		{"a VLAN", `{"vlan":5}`, "", 2, "vlan"},
		{"a VLAN trunk", `{"vlanTrunk":[{"id":5}]}`, "", 2, "vlanTrunk"},
		{"a VLAN trunk out of range", `{"vlanTrunk":[{"id":0}]}`, "", 7, "vlanTrunk"},
		{"a VLAN trunk without its end", `{"vlanTrunk":[{"minID":5}]}`, "", 7, "vlanTrunk"},
		{"a VLAN trunk backwards", `{"vlanTrunk":[{"minID":5,"maxID":4}]}`, "", 7, "vlanTrunk"},
		{"no ipam", `{"ipam":{}}`, "", 2, "ipam"},
		{"an ingress policy", `{"ingressPolicy":"isolated"}`, "", 2, "ingressPolicy"},
		{"port mappings of its own", `{"runtimeConfig":{"portMappings":[{"hostPort":80}]}}`, "", 2, "runtimeConfig.portMappings"},
		{"a bandwidth of its own", `{"runtimeConfig":{"bandwidth":{"ingressRate":1}}}`, "", 2, "runtimeConfig.bandwidth"},
		{"an empty bridge name", `{"bridge":""}`, "", 7, "bridge"},
		{"an unknown forwarding word", `{"forwarding":"fast"}`, "", 7, "forwarding"},
		{"an unknown bigTCP word", `{"bigTCP":"yes"}`, "", 7, "bigTCP"},
		{"a prefix that is none", `{"nonMasqueradeCIDRs":["10.0.0.0"]}`, "", 7, "nonMasqueradeCIDRs"},
		{"a prefix with host bits", `{"nonMasqueradeCIDRs":["10.0.0.1/8"]}`, "", 7, "nonMasqueradeCIDRs"},
		{"an IPv4 prefix in IPv6 form", `{"nonMasqueradeCIDRs":["::ffff:10.0.0.0/104"]}`, "", 7, "nonMasqueradeCIDRs"},
		{"exempt prefixes without masquerade", `{"ipMasq":false,"nonMasqueradeCIDRs":["10.0.0.0/8"]}`, "", 7, "nonMasqueradeCIDRs"},
		{"an egress address without masquerade", `{"ipMasq":false,"egressIP":"192.0.2.1"}`, "", 7, "egressIP"},
		{"random ports without masquerade", `{"ipMasq":false,"masqueradeFullyRandom":true}`, "", 7, "masqueradeFullyRandom"},
		{"an egress address that is none", `{"egressIP":"node"}`, "", 7, "egressIP"},
		{"an uplink that is no name", `{"uplinks":["eth/0"]}`, "", 7, "uplinks"},
		{"an uplink without a name", `{"uplinks":["eth0",""]}`, "", 7, "uplinks"},
		{"an uplink with too long a name", `{"uplinks":["abcdefghijklmnop"]}`, "", 7, "uplinks"},
		{"a glob that is none", `{"uplinks":["eth[0"]}`, "", 7, "uplinks"},
		{"uplinks that are no list", `{"uplinks":"eth0"}`, "", 6, "uplinks"},
		{"a mark that is no number", `{"slowPathMark":"red"}`, "", 6, "slowPathMark"},
		{"a mark of more than 32 bits", `{"slowPathMark":4294967296}`, "", 6, "slowPathMark"},
		{"a negative mark", `{"slowPathMark":-1}`, "", 6, "slowPathMark"},
		{"an egress address that is multicast", `{"egressIP":"224.0.0.1"}`, "", 7, "egressIP"},
		{"two egress addresses of one family", `{"egressIP":["192.0.2.1","192.0.2.2"]}`, "", 7, "egressIP"},
		{"an egress address with random ports", `{"egressIP":"192.0.2.1","masqueradeFullyRandom":true}`, "", 7, "masqueradeFullyRandom"},
		{"a MAC that is none", `{"runtimeConfig":{"mac":"zz"}}`, "", 7, "runtimeConfig.mac"},
		{"a multicast MAC", `{"args":{"cni":{"mac":"01:00:5e:00:00:01"}}}`, "", 7, "args.cni.mac"},
		{"a bad MAC in CNI_ARGS", `{}`, "IgnoreUnknown=1;MAC=zz", 7, "CNI_ARGS MAC"},
		{"CNI_ARGS that are no pairs", `{}`, "MAC", 4, "CNI_ARGS"},
		{"unknown CNI_ARGS", `{}`, "FOO=bar", 4, "CNI_ARGS"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseConfig(mutate(t, c.change), c.args)
			var got *types.Error
			if !errors.As(err, &got) {
				t.Fatalf("ParseConfig = %v, want an error with code %d", err, c.code)
			}
			if got.Code != c.code || got.Details != c.details {
				t.Errorf("code %d details %q (%s), want code %d details %q", got.Code, got.Details, got.Msg, c.code, c.details)
			}
		})
	}
}

func TestConfigAccepts(t *testing.T) {
	cases := []struct {
		name   string
		change string
		args   string
		check  func(*Config) bool
	}{
		{"defaults", `{}`, "", func(c *Config) bool {
			return c.Bridge == "cni0" && c.Forwarding == datapath.ForwardingAuto && c.BigTCP == datapath.BigTCPAuto && c.SourceCheck == nil
		}},
		{"keys that only a bridge has", `{"promiscMode":true,"forceAddress":true,"preserveDefaultVlan":true}`, "", func(*Config) bool { return true }},
		{"keys in another case, as encoding/json does", `{"MTU":1400,"RuntimeConfig":{"MAC":"02:00:00:00:00:01"}}`, "", func(c *Config) bool {
			return c.MTU == 1400 && c.mac.String() == "02:00:00:00:00:01"
		}},
		{"unknown keys", `{"plan9":true}`, "", func(*Config) bool { return true }},
		{"isDefaultGateway implies isGateway", `{"isGateway":false,"isDefaultGateway":true}`, "", func(c *Config) bool { return c.IsGateway }},
		{"the runtime's MAC before args before CNI_ARGS", `{"runtimeConfig":{"mac":"02:00:00:00:00:01"},"args":{"cni":{"mac":"02:00:00:00:00:02"}}}`,
			"MAC=02:00:00:00:00:03", func(c *Config) bool { return c.mac.String() == "02:00:00:00:00:01" }},
		{"a MAC in CNI_ARGS", `{}`, "MAC=02:00:00:00:00:03", func(c *Config) bool { return c.mac.String() == "02:00:00:00:00:03" }},
		{"kubelet's CNI_ARGS", `{}`, "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=d",
			func(c *Config) bool { return c.mac == nil }},
		{"uplinks", `{"uplinks":["eth0","flannel.*","wl[0-9]*"]}`, "", func(c *Config) bool { return len(c.Uplinks) == 3 }},
		{"a mark as a number", `{"slowPathMark":4294967295}`, "", func(c *Config) bool { return c.SlowPathMark == 1<<32-1 }},
		{"a mark as text", `{"slowPathMark":"0x10"}`, "", func(c *Config) bool { return c.SlowPathMark == 16 }},
		{"no mark", `{"slowPathMark":null}`, "", func(c *Config) bool { return c.SlowPathMark == 0 }},
		{"no egress address", `{"egressIP":null}`, "", func(c *Config) bool { return len(c.egress) == 0 }},
		{"one egress address", `{"egressIP":"192.0.2.1"}`, "", func(c *Config) bool { return len(c.egress) == 1 }},
		{"an egress address for each family", `{"egressIP":["192.0.2.1","2001:db8::1"]}`, "", func(c *Config) bool { return len(c.egress) == 2 }},
		{"source check off", `{"sourceCheck":false}`, "", func(c *Config) bool { return c.SourceCheck != nil && !*c.SourceCheck }},
		{"host-local executed", `{"ipam":{"type":"host-local","inProcess":false}}`, "", func(c *Config) bool { return !*c.ipam.InProcess }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			config, err := ParseConfig(mutate(t, c.change), c.args)
			if err != nil {
				t.Fatalf("ParseConfig: %v", err)
			}
			if !c.check(config) {
				t.Errorf("configuration is not as expected: %+v", config)
			}
		})
	}
}

func TestDelReadsWhatAddRefuses(t *testing.T) {
	c := lenientConfig(mutate(t, `{"vlan":"x","mtu":"big","ipam":{"type":"host-local","inProcess":false}}`))
	if c.Name != "net" || c.IPAM.Type != "host-local" || c.ipam.InProcess == nil || *c.ipam.InProcess {
		t.Errorf("lenientConfig lost name or ipam: %+v", c)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(baseConfig), "IgnoreUnknown=1;MAC=02:00:00:00:00:03")
	f.Add([]byte(`{"egressIP":["a"],"vlanTrunk":[{"minID":1}]}`), "=")
	f.Fuzz(func(t *testing.T, stdin []byte, args string) {
		c, err := ParseConfig(stdin, args)
		if err == nil {
			if c.IPAM.Type == "" || c.VLAN != 0 || c.Forwarding == "" || c.MTU < 0 {
				t.Errorf("accepted %s as %+v", stdin, c)
			}
			return
		}
		var typed *types.Error
		if !errors.As(err, &typed) || typed.Code == types.ErrInternal || typed.Code == 0 {
			t.Errorf("error without a code: %v", err)
		}
		if strings.Contains(typed.Msg, "\n") {
			t.Errorf("message of several lines: %q", typed.Msg)
		}
		lenientConfig(stdin)
	})
}
