// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/ipam"
)

// manager gives and takes addresses: host-local's files served in-process,
// or another IPAM plugin executed by the CNI convention.
type manager interface {
	add() (*lease, error)
	del() error
	check() error
	status() error
	gc(valid []types.GCAttachment) error
	// held returns the addresses of the attachment, as far as the manager knows.
	held() ([]netip.Addr, error)
	// complete says that what held returns is all there can be.
	complete() bool
	// subnets returns those that addresses come from, as far as it knows.
	subnets() []netip.Prefix
}

// newManager chooses the manager that the configuration names.
func newManager(c *Config, args *skel.CmdArgs) (manager, error) {
	if c.IPAM.Type != "host-local" || c.ipam.InProcess != nil && !*c.ipam.InProcess {
		return &delegate{name: c.IPAM.Type, stdin: args.StdinData}, nil
	}
	// CNI_ARGS were checked with the configuration; MAC is for us, not the pool.
	cniArgs := "IgnoreUnknown=1"
	if args.Args != "" {
		cniArgs += ";" + args.Args
	}
	pool, err := ipam.NewPool(args.StdinData, cniArgs)
	if err != nil {
		return nil, err
	}
	return &inProcess{pool: pool, owner: ipam.Owner{ContainerID: args.ContainerID, IfName: args.IfName}}, nil
}

// inProcess serves host-local's configuration and files without a process.
type inProcess struct {
	pool  *ipam.Pool
	owner ipam.Owner
}

// add comes after the attachment's device is made, and del after it is removed:
// ipam.Stale tells by the device who holds a lease.
func (m *inProcess) add() (*lease, error) {
	m.pool.Node, _ = datapath.NodeName() // without one its GC leaves the lease alone
	r, err := m.pool.Allocate(m.owner)
	if err != nil {
		return nil, err
	}
	return leaseOfPool(r), nil
}

func (m *inProcess) del() error {
	_, err := m.pool.Release(m.owner)
	return err
}

func (m *inProcess) check() error                { return m.pool.Check(m.owner) }
func (m *inProcess) status() error               { return m.pool.Status() }
func (m *inProcess) held() ([]netip.Addr, error) { return m.pool.Leases(m.owner) }
func (m *inProcess) complete() bool              { return true }
func (m *inProcess) subnets() []netip.Prefix     { return m.pool.Subnets() }

func (m *inProcess) gc(valid []types.GCAttachment) error {
	owners := make([]ipam.Owner, 0, len(valid))
	for _, v := range valid {
		owners = append(owners, ipam.Owner{ContainerID: v.ContainerID, IfName: v.IfName})
	}
	_, err := m.pool.Collect(ipam.ValidOwners(owners))
	return err
}

// delegate executes an IPAM plugin from CNI_PATH with the environment and
// standard input of this call (CNI specification, section 4).
type delegate struct {
	name  string
	stdin []byte
}

func (d *delegate) add() (*lease, error) {
	if err := d.find(); err != nil {
		return nil, err
	}
	r, err := invoke.DelegateAdd(context.Background(), d.name, d.stdin, nil)
	if err != nil {
		return nil, d.error(err)
	}
	converted, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, newError(CodeDelegateFailed, d.name, "convert result of IPAM plugin %s: %v", d.name, err)
	}
	return leaseOfResult(converted)
}

func (d *delegate) del() error                    { return d.run(invoke.DelegateDel) }
func (d *delegate) check() error                  { return d.run(invoke.DelegateCheck) }
func (d *delegate) status() error                 { return d.run(invoke.DelegateStatus) }
func (d *delegate) gc([]types.GCAttachment) error { return d.run(invoke.DelegateGC) }

// run executes a verb without a result.
func (d *delegate) run(verb func(context.Context, string, []byte, invoke.Exec) error) error {
	if err := d.find(); err != nil {
		return err
	}
	return d.error(verb(context.Background(), d.name, d.stdin, nil))
}

// find says in our words that the plugin is missing.
func (d *delegate) find() error {
	path := os.Getenv("CNI_PATH")
	if _, err := invoke.FindInPath(d.name, filepath.SplitList(path)); err != nil {
		return newError(codeNotAvailable, d.name, "IPAM plugin %s is not in CNI_PATH (%s)", d.name, path)
	}
	return nil
}

func (*delegate) held() ([]netip.Addr, error) { return nil, nil }
func (*delegate) complete() bool              { return false }
func (*delegate) subnets() []netip.Prefix     { return nil }

// error keeps a code of the specification, except for "internal", which says
// nothing. A plugin's own codes would be taken for ours.
func (d *delegate) error(err error) error {
	if err == nil {
		return nil
	}
	var own *types.Error
	if errors.As(err, &own) {
		if own.Code < CodeInterfaceExists && own.Code != types.ErrUnknown {
			return own
		}
		return newError(CodeDelegateFailed, d.name, "IPAM plugin %s: code %d: %v", d.name, own.Code, own)
	}
	return newError(codeNotAvailable, d.name, "execute IPAM plugin %s: %v", d.name, err)
}

// attachmentsOf names the valid attachments of a GC call.
func attachmentsOf(network string, valid []types.GCAttachment) []datapath.Attachment {
	attachments := make([]datapath.Attachment, 0, len(valid))
	for _, v := range valid {
		attachments = append(attachments, datapath.Attachment{Network: network, ContainerID: v.ContainerID, IfName: v.IfName})
	}
	return attachments
}
