// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"regexp"
	"strings"
	"testing"
)

func TestDeviceNameFollowsFromTheAttachmentAlone(t *testing.T) {
	a := Attachment{Network: "net", ContainerID: "c1", IfName: "eth0"}
	if got, want := a.Device(), "zlucfaeybgxumlp"; got != want {
		t.Errorf("Device() = %q, want %q: a changed name orphans every attachment made before", got, want)
	}
	if !regexp.MustCompile(`^zl[a-z2-7]{13}$`).MatchString(a.Device()) {
		t.Errorf("Device() = %q is not a device name of 15 bytes", a.Device())
	}
	if prefix := strings.TrimSuffix(a.DevicePattern(), "+"); !strings.HasPrefix(a.Device(), prefix) || len(prefix) != 6 {
		t.Errorf("DevicePattern() = %q does not match %q", a.DevicePattern(), a.Device())
	}
}

func TestDeviceNamesDifferInEveryField(t *testing.T) {
	base := Attachment{Network: "net", ContainerID: "c1", IfName: "eth0"}
	others := []Attachment{
		{Network: "net2", ContainerID: "c1", IfName: "eth0"},
		{Network: "net", ContainerID: "c2", IfName: "eth0"},
		{Network: "net", ContainerID: "c1", IfName: "eth1"},
		{Network: "netc1", ContainerID: "", IfName: "eth0"},
	}
	for _, other := range others {
		if other.Device() == base.Device() {
			t.Errorf("%+v and %+v share the device %s", base, other, base.Device())
		}
		if other.hostMAC().String() == base.hostMAC().String() {
			t.Errorf("%+v and %+v share the MAC %s", base, other, base.hostMAC())
		}
	}
	if base.hostMAC().String() == base.containerMAC().String() {
		t.Error("both ends of a pair have one MAC")
	}
	if mac := base.hostMAC(); mac[0]&3 != 2 {
		t.Errorf("MAC %s is not a locally administered unicast address", mac)
	}
}

func TestAliasNamesTheAttachmentAndFits(t *testing.T) {
	long := strings.Repeat("n", 300)
	cases := []struct {
		name  string
		a     Attachment
		alias string
	}{
		{"short fields in clear", Attachment{"net", "c1", "eth0"}, "zipline net c1 eth0"},
		{"a container id of a runtime in clear", Attachment{"net", strings.Repeat("a", 64), "eth0"}, "zipline net " + strings.Repeat("a", 64) + " eth0"},
		{"a long network name as its hash", Attachment{long, "c1", "eth0"}, "zipline " + aliasField(long) + " c1 eth0"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := c.a.alias(); got != c.alias {
				t.Errorf("alias() = %q, want %q", got, c.alias)
			}
			if len(c.a.alias()) > aliasMax {
				t.Errorf("alias has %d bytes", len(c.a.alias()))
			}
			if !aliasOfNetwork(c.a.alias(), c.a.Network) {
				t.Error("the alias is not recognised as the network's")
			}
			if aliasOfNetwork(c.a.alias(), "other") {
				t.Error("the alias is taken for another network's")
			}
		})
	}
}
