// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bench/load"
)

// place is an address in a network namespace.
type place struct {
	// Namespace is a path.
	Namespace string
	Network   string
	Address   netip.AddrPort
}

// connection is one end of it, and where it leads to.
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

// serveLoad waits for one connection and is its end until it is over.
func (a *agent) serveLoad(end load.End) (reply, error) {
	var rep reply
	if a.listener.place.Namespace == "" {
		return rep, errors.New("serve: not listening")
	}
	err := load.InNamespace(a.listener.place.Namespace, func() error {
		fd, peer, err := load.Accept(end.Network, a.listener.fd)
		if err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		defer func() { _ = unix.Close(fd) }()
		rep.Address = peer
		rep.Measurement, err = end.Run(fd)
		return err
	})
	a.listener = listener{}
	return rep, err
}

func connect(c connection) (reply, error) {
	var rep reply
	err := load.InNamespace(c.To.Namespace, func() error {
		fd, err := load.Connect(c.To.Network, c.To.Address)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		rep.Measurement, err = c.End.Run(fd)
		return err
	})
	return rep, err
}
