// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/zipline-cni/zipline/datapath"
)

// Status says whether an ADD would succeed: code 50 when not.
func (p *Plugin) Status(args *skel.CmdArgs) error {
	c, err := ParseConfig(args.StdinData, args.Args)
	if err != nil {
		return err
	}
	manager, err := newManager(c, args)
	if err != nil {
		return addError(err, "ipam")
	}
	if err := manager.status(); err != nil {
		return notAvailable("ipam", err)
	}
	if err := datapath.Status(c.Forwarding); err != nil {
		return notAvailable("kernel", err)
	}
	return nil
}

// notAvailable keeps 50 and 51 of a delegate, and makes 50 of all else.
func notAvailable(object string, err error) error {
	var own *types.Error
	if errors.As(err, &own) && (own.Code == codeNotAvailable || own.Code == codeLimitedConnectivity) {
		return own
	}
	var unsupported *datapath.UnsupportedError
	if errors.As(err, &unsupported) {
		object = unsupported.Key
	}
	return newError(codeNotAvailable, object, "not available: %v", oneLine(err))
}
