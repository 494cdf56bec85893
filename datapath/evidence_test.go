// SPDX-License-Identifier: Apache-2.0

package datapath

import "testing"

func TestWhatAnEndpointWantsIsToldByItsOwnConfigurationOrAnyOfItsNetwork(t *testing.T) {
	spec := func(network string, forwarding Forwarding) *Spec {
		return &Spec{Pair: Pair{Attachment: Attachment{Network: network}, Forwarding: forwarding}}
	}
	e := Evidence{Specs: map[string]*Spec{
		"slow0": spec("mixed", ForwardingKernel), "slow1": spec("mixed", ForwardingKernel), "fast0": spec("mixed", ForwardingDirect),
		"slow2": spec("slow", ForwardingKernel),
	}}
	for device, c := range map[string]struct {
		network string
		want    bool
	}{
		"slow0": {"mixed", false}, "fast0": {"mixed", true}, "unknown0": {"mixed", true},
		"unknown1": {"slow", false}, "unknown2": {"unknown", false},
	} {
		if got := e.wantsPrograms(&Attached{Attachment: Attachment{Network: c.network}, HostDevice: device}); got != c.want {
			t.Errorf("%s of network %s wants programs: %v; want %v", device, c.network, got, c.want)
		}
	}
}
