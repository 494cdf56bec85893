// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// group is the connected sockets that an end serves with its one thread. A single
// one is waited for by reading it: that is one system call less for every packet
// than any way to wait for many.
type group struct {
	fds []int
	// flags are for receive and write.
	flags int
	// limit is how long ready, or a single socket, waits.
	limit  time.Duration
	poller *poller
	single [1]unix.EpollEvent
}

// newGroup takes over connected sockets. Ready waits for these events.
func newGroup(fds []int, events uint32, limit time.Duration) (*group, error) {
	g := &group{fds: fds, limit: limit}
	if len(fds) == 1 {
		g.single[0].Events = events
		return g, errors.Join(setTimeout(fds[0], unix.SO_RCVTIMEO, limit), setTimeout(fds[0], unix.SO_SNDTIMEO, limit))
	}
	var err error
	if g.poller, err = newPoller(); err != nil {
		return g, fmt.Errorf("wait for sockets: %w", err)
	}
	g.flags = unix.MSG_DONTWAIT
	for i, fd := range fds {
		if err := g.poller.add(fd, i, events); err != nil {
			return g, fmt.Errorf("wait for sockets: %w", err)
		}
	}
	return g, nil
}

// ready returns the sockets that something can be done with. There are none if
// nothing has happened for too long.
func (g *group) ready() ([]unix.EpollEvent, error) {
	if g.poller == nil {
		return g.single[:], nil
	}
	return g.poller.wait(g.limit)
}

// serve does what there is to do with the sockets, one at a time, until their
// peers have closed all of them. Do returns whether this one's has.
func (g *group) serve(do func(fd int, events uint32) (over bool, err error)) error {
	for open := len(g.fds); open > 0; {
		events, err := g.ready()
		if err == nil && len(events) == 0 {
			err = errSilent
		}
		if err != nil {
			return err
		}
		for _, event := range events {
			over, err := do(g.fds[event.Fd], event.Events)
			if closed(err) {
				over, err = true, nil
			}
			if err != nil && !g.notYet(err) {
				return err
			}
			if over && err == nil {
				g.leave(int(event.Fd))
				open--
			}
		}
	}
	return nil
}

// notYet says whether an error means that there was nothing to do after all. From a
// single socket it means that it has waited for too long.
func (g *group) notYet(err error) bool { return err == unix.EAGAIN && g.poller != nil }

// leave closes one of the sockets.
func (g *group) leave(i int) {
	hangUp(g.fds[i])
	g.fds[i] = -1
}

func (g *group) close() {
	for i, fd := range g.fds {
		if fd >= 0 {
			g.leave(i)
		}
	}
	if g.poller != nil {
		g.poller.close()
	}
}

// peers are whom a server has been reached from.
type peers struct{ addr netip.Addr }

// see is for every peer: they have to have one address.
func (p *peers) see(from *name) error {
	switch addr := from.addr(); {
	case !p.addr.IsValid():
		p.addr = addr
	case p.addr != addr:
		return fmt.Errorf("reached from %s and from %s", p.addr, addr)
	}
	return nil
}
