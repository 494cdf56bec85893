// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/ipam"
)

// Del detaches a container. It needs no namespace, no prevResult and no
// record of ADD, and succeeds when there is nothing (left) to remove. A
// configuration that ADD refuses does not make DEL fail: nothing of it was ever
// made, and the runtime would repeat the DEL for ever.
func (p *Plugin) Del(args *skel.CmdArgs) error {
	c := lenientConfig(args.StdinData)
	device := attachment(c, args).Device()
	manager, err := newManager(c, args)
	if isConfigError(err) || c.IPAM.Type == "" {
		manager, err = nil, nil
	}
	if err == nil {
		err = removeAttachment(c, args, manager)
	}
	if err != nil {
		return removeError("del", device, err)
	}
	return nil
}

// lenientConfig reads the keys that DEL and GC need, and no others: what is
// wrong elsewhere is ADD's matter. skel has checked that it is JSON with a name.
func lenientConfig(stdin []byte) *Config {
	var keys struct {
		CNIVersion string         `json:"cniVersion"`
		Name       string         `json:"name"`
		PrevResult map[string]any `json:"prevResult"`
	}
	c := &Config{Bridge: defaultBridge}
	_ = json.Unmarshal(stdin, &keys)
	c.CNIVersion, c.Name, c.RawPrevResult = keys.CNIVersion, keys.Name, keys.PrevResult
	c.ipam, _ = parseIPAM(stdin)
	c.IPAM.Type = c.ipam.Type
	return c
}

func isConfigError(err error) bool {
	var config *ipam.ConfigError
	return errors.As(err, &config)
}

// removeAttachment removes the endpoint, then releases its addresses: an
// address must not be leased again while anything of its last owner is left.
func removeAttachment(c *Config, args *skel.CmdArgs, m manager) error {
	hints, err := delHints(c, m)
	var release func() error
	if m != nil && err == nil {
		release = m.del
	}
	return errors.Join(err, datapath.Remove(attachment(c, args), hints, release))
}

// delHints collects what is known of the addresses beside the kernel's
// state: the lease, and prevResult where the runtime gave one.
func delHints(c *Config, m manager) (datapath.Hints, error) {
	var hints datapath.Hints
	var err error
	if m != nil {
		var held []netip.Addr
		held, err = m.held()
		hints = datapath.Hints{Addresses: held, Subnets: m.subnets(), Leases: m.complete()}
	}
	// A prevResult that cannot be read is no reason to leave things behind.
	if prev, prevErr := prevResult(c); prevErr == nil && prev != nil {
		if l, leaseErr := leaseOfResult(prev); leaseErr == nil {
			more := l.hints()
			hints.Addresses = append(hints.Addresses, more.Addresses...)
			hints.Subnets = append(hints.Subnets, more.Subnets...)
		}
	}
	return hints, err
}
