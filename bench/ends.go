// SPDX-License-Identifier: Apache-2.0

// What an agent does as an end of connections.

package bench

import (
	"errors"
	"net/netip"

	"github.com/zipline-cni/zipline/bench/load"
)

// place is an address in a network namespace.
type place struct {
	// Namespace is a path.
	Namespace string
	Network   string
	Address   netip.AddrPort
}

// connection is what a client does, and where it leads to.
type connection struct {
	To  place
	End load.End
}

// listener is what an agent listens with.
type listener struct {
	place place
	fd    int
}

func (a *agent) listen(at place) (reply, error) {
	var rep reply
	err := load.InNamespace(at.Namespace, func() (err error) {
		a.listener.place = at
		a.listener.fd, rep.Address, err = load.Listen(at.Network, at.Address)
		return err
	})
	return rep, err
}

// serveLoad is one end of the connections that arrive, until they are over.
func (a *agent) serveLoad(end load.End) (reply, error) {
	var rep reply
	if a.listener.place.Namespace == "" {
		return rep, errors.New("serve: not listening")
	}
	err := load.InNamespace(a.listener.place.Namespace, func() error {
		m, peer, err := end.Serve(a.listener.fd)
		rep.Measurement, rep.Address = m, netip.AddrPortFrom(peer, 0)
		return err
	})
	a.listener = listener{}
	return rep, err
}

func connect(c connection) (reply, error) {
	var rep reply
	err := load.InNamespace(c.To.Namespace, func() (err error) {
		rep.Measurement, err = c.End.Connect(c.To.Address)
		return err
	})
	return rep, err
}
