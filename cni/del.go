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
// configuration that ADD refuses does not make DEL fail: nothing of it can
// exist, and the runtime would repeat the DEL for ever.
func (p *Plugin) Del(args *skel.CmdArgs) error {
	c := lenientConfig(args.StdinData)
	manager, err := newManager(c, args)
	if isConfigError(err) || c.IPAM.Type == "" {
		manager, err = nil, nil
	}
	if err != nil {
		return removeError("del", err)
	}
	if err := removeAttachment(c, args, manager); err != nil {
		return removeError("del", err)
	}
	return nil
}

// lenientConfig reads what DEL needs and leaves the rest at its zero value.
func lenientConfig(stdin []byte) *Config {
	c := &Config{Bridge: defaultBridge}
	_ = json.Unmarshal(stdin, c) // skel has read the name already; a wrong type elsewhere is ADD's matter
	var ipamConf struct {
		IPAM struct {
			InProcess *bool `json:"inProcess"`
		} `json:"ipam"`
	}
	_ = json.Unmarshal(stdin, &ipamConf) // as above
	c.inIPAM = ipamConf.IPAM
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
	err = errors.Join(err, datapath.Remove(attachment(c, args), hints))
	if m != nil {
		err = errors.Join(err, m.del())
	}
	return err
}

// delHints collects what is known of the addresses beside the kernel's
// state: the lease, and prevResult where the runtime gave one.
func delHints(c *Config, m manager) (datapath.Hints, error) {
	var hints datapath.Hints
	var err error
	if m != nil {
		var held []netip.Addr
		held, err = m.held()
		hints = datapath.Hints{Addresses: held, Subnets: m.subnets()}
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
