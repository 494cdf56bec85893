// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"net"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/ipam"
)

// Check verifies that the attachment is as ADD left it, and as later plugins
// of the chain changed it (prevResult). The error lists every finding, each
// with what is wrong and how to mend it.
func (p *Plugin) Check(args *skel.CmdArgs) error {
	c, err := ParseConfig(args.StdinData, args.Args)
	if err != nil {
		return err
	}
	prev, err := prevResult(c)
	if err != nil {
		return err
	}
	if prev == nil {
		return invalid("prevResult", "required prevResult missing")
	}
	findings, err := checkEndpoint(c, args, prev)
	if err != nil {
		return addError(err, attachment(c, args).Device())
	}
	leases, err := checkLease(c, args, prev)
	if err != nil {
		return addError(err, "ipam")
	}
	return checkError(append(findings, leases...))
}

// checkLease asks the address manager about the attachment's addresses.
func checkLease(c *Config, args *skel.CmdArgs, prev *current.Result) ([]datapath.Finding, error) {
	manager, err := newManager(c, args)
	if err != nil {
		return nil, err
	}
	err = manager.check()
	if !errors.Is(err, ipam.ErrNotLeased) {
		return nil, err
	}
	addresses := make([]string, 0, len(prev.IPs))
	for _, ip := range prev.IPs {
		addresses = append(addresses, ip.Address.IP.String())
	}
	return []datapath.Finding{{
		Object: "lease of " + strings.Join(addresses, ", "), Wrong: err.Error(),
		Mend: "DEL and ADD the container, before its address is given to another",
	}}, nil
}

// checkEndpoint compares the endpoint with what prevResult says of it.
func checkEndpoint(c *Config, args *skel.CmdArgs, prev *current.Result) ([]datapath.Finding, error) {
	spec, err := specOfResult(c, args, prev)
	if err != nil {
		return nil, err
	}
	findings, err := datapath.Check(spec)
	if err == nil && containerOf(prev, args) == nil {
		findings = append(findings, datapath.Finding{
			Object: "prevResult", Wrong: "it lists no interface " + args.IfName + " in sandbox " + args.Netns,
			Mend: "CHECK with the namespace path that ADD was called with",
		})
	}
	return findings, err
}

// specOfResult describes the endpoint that a result is about.
func specOfResult(c *Config, args *skel.CmdArgs, prev *current.Result) (*datapath.Spec, error) {
	pair := c.pair(args)
	if iface := containerOf(prev, args); iface != nil {
		pair.MAC, _ = net.ParseMAC(iface.Mac) // an unreadable one is compared as absent, and found
	}
	l, err := leaseOfResult(prev)
	if err != nil {
		return nil, newError(types.ErrDecodingFailure, "prevResult", "%v", err)
	}
	return c.spec(pair, l)
}

// containerOf returns the container's interface of a result.
func containerOf(r *current.Result, args *skel.CmdArgs) *current.Interface {
	for _, iface := range r.Interfaces {
		if iface != nil && iface.Name == args.IfName && iface.Sandbox == args.Netns {
			return iface
		}
	}
	return nil
}

func checkError(findings []datapath.Finding) error {
	if len(findings) == 0 {
		return nil
	}
	var texts, objects []string
	for _, f := range findings {
		texts = append(texts, f.String())
		objects = append(objects, f.Object)
	}
	return newError(CodeCheckFailed, strings.Join(objects, ", "), "check: %s", strings.Join(texts, "; "))
}
