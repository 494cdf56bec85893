// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/zipline-cni/zipline/datapath"
)

// validKey lists the attachments that a GC must keep.
const validKey = "cni.dev/valid-attachments"

// GC removes every attachment of the network that is not valid any more. It
// goes on after an error, to remove as much as it can.
func (p *Plugin) GC(args *skel.CmdArgs) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(args.StdinData, &keys); err != nil {
		return decodeError(err)
	}
	// An empty list (or null, as libcni writes it) means that nothing is
	// valid. A missing one is a caller's mistake that must not cost every
	// container its network.
	if _, ok := keys[validKey]; !ok {
		return invalid(validKey, "%s is missing", validKey)
	}
	c := &Config{Bridge: defaultBridge}
	if err := json.Unmarshal(args.StdinData, c); err != nil {
		return decodeError(err)
	}
	if err := collect(lenientConfig(args.StdinData), args, c.ValidAttachments); err != nil {
		return removeError("gc", c.Name, err)
	}
	return nil
}

func collect(c *Config, args *skel.CmdArgs, valid []types.GCAttachment) error {
	manager, err := newManager(c, args)
	if isConfigError(err) || c.IPAM.Type == "" {
		manager, err = nil, nil
	}
	if err != nil {
		return err
	}
	hints, err := delHints(c, manager)
	err = errors.Join(err, datapath.Collect(c.Name, attachmentsOf(c.Name, valid), hints.Subnets))
	if err != nil || manager == nil {
		return err // leases stay while anything of their owners is left
	}
	return manager.gc(valid)
}
