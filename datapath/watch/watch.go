// SPDX-License-Identifier: Apache-2.0

// Package watch tells what happens to the endpoints of a node while it happens,
// as the kernel announces it (rtnetlink(7)).
package watch

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath"
)

// Kind is what happened.
type Kind string

// What can happen.
const (
	Attach         Kind = "attach"
	Detach         Kind = "detach"
	LinkUp         Kind = "link up"
	LinkDown       Kind = "link down"
	LinkChanged    Kind = "link changed"
	AddressAdded   Kind = "address added"
	AddressGone    Kind = "address removed"
	RouteAdded     Kind = "route added"
	RouteGone      Kind = "route removed"
	NeighbourSet   Kind = "neighbour set"
	NeighbourGone  Kind = "neighbour removed"
	EventsWereLost Kind = "events lost"
)

// Event is what happened to an endpoint, or to the node's routes.
type Event struct {
	Time time.Time
	Kind Kind
	// Endpoint is whose it is: zero where it is nobody's (a subnet guard). Of one
	// that is just being made the alias may not be known yet.
	Endpoint datapath.Attached
	// Address is that of an address, route or neighbour, with its length.
	Address netip.Prefix
	// Detail is what else there is to say, in words.
	Detail string
}

// groups are those of rtnetlink that are listened to (RTMGRP_*).
const groups = unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE |
	unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE

// wake is how often it is looked whether the context has ended.
const wake = 100 * time.Millisecond

// receiveBuffer is how much the kernel may have announced before it is read.
const receiveBuffer = 4 << 20

// watcher is a socket and what is known so far.
type watcher struct {
	tell       func(Event)
	links      map[int]datapath.Attached
	announced  map[int]bool
	routes     map[netip.Addr]int
	neighbours map[neighbour]string
}

type neighbour struct {
	index int
	addr  netip.Addr
}

// Watch calls tell for everything that happens in the calling thread's network
// namespace, until ctx ends. ready is called when nothing can be missed any more.
// When the kernel had to drop announcements tell is told so, and then what is
// different since, as far as it can be seen: endpoints, their state, host routes.
func Watch(ctx context.Context, ready func(), tell func(Event)) error {
	return watch(ctx, receiveBuffer, ready, tell)
}

func watch(ctx context.Context, buffer int, ready func(), tell func(Event)) error {
	socket, err := subscribe(buffer)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }() // only read from
	w := &watcher{
		tell: func(Event) {}, links: map[int]datapath.Attached{}, announced: map[int]bool{},
		routes: map[netip.Addr]int{}, neighbours: map[neighbour]string{},
	}
	if err := w.sync(); err != nil {
		return err
	}
	w.tell = tell
	ready()
	return w.run(ctx, socket)
}

// subscribe opens the socket. It is no [os.File]: Go's poller takes a socket that
// has nothing but an error, which is what a loss is, for one that it cannot wait for.
func subscribe(buffer int) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, fmt.Errorf("open route socket: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer) // the default will do
	}
	limit := unix.NsecToTimeval(wake.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}))
	if err != nil {
		_ = unix.Close(fd) // the error is told
		return -1, fmt.Errorf("listen for changes: %w", err)
	}
	return fd, nil
}

func (w *watcher) run(ctx context.Context, socket int) error {
	data := make([]byte, 1<<16)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(socket, data, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			w.send(EventsWereLost, datapath.Attached{}, netip.Prefix{}, "what follows is different since")
			drain(socket)
			if err := w.sync(); err != nil {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("read changes: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(data[:n])
		if err != nil {
			return fmt.Errorf("read changes: %w", err)
		}
		for _, m := range messages {
			w.handle(m)
		}
	}
	return nil
}

// drain throws away what was announced before the loss: it is older than what
// sync finds. The kernel drops all that comes until the socket is empty, and says
// so only once (netlink_overrun in net/netlink/af_netlink.c).
func drain(socket int) {
	for err := error(nil); err == nil || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR); {
		_, _, err = unix.Recvfrom(socket, make([]byte, 1), unix.MSG_DONTWAIT)
	}
}

func (w *watcher) send(kind Kind, e datapath.Attached, address netip.Prefix, detail string) {
	w.tell(Event{Time: time.Now(), Kind: kind, Endpoint: e, Address: address, Detail: detail})
}

// sync compares what is known with what there is.
func (w *watcher) sync() error {
	list, err := datapath.Endpoints()
	if err != nil {
		return err
	}
	now := map[int]bool{}
	routes := map[netip.Addr]int{}
	for _, e := range list {
		now[e.Index] = true
		w.link(e)
		for _, addr := range e.Addresses {
			routes[addr] = e.Index
		}
	}
	for index := range w.links {
		if !now[index] {
			w.unlink(index)
		}
	}
	for addr, index := range w.routes {
		if routes[addr] != index {
			w.route(false, netip.PrefixFrom(addr, addr.BitLen()), index)
		}
	}
	for addr, index := range routes {
		if w.routes[addr] != index {
			w.route(true, netip.PrefixFrom(addr, addr.BitLen()), index)
		}
	}
	return nil
}

// link is told of a device of ours, new or changed.
func (w *watcher) link(e datapath.Attached) {
	before, known := w.links[e.Index]
	w.links[e.Index] = e
	// ADD names a device that it has made already.
	if !w.announced[e.Index] && e.Network != "" {
		w.announced[e.Index] = true
		w.send(Attach, e, netip.Prefix{}, fmt.Sprintf("mtu %d", e.MTU))
	}
	if known && before.Up != e.Up || !known && e.Up {
		kind := LinkDown
		if e.Up {
			kind = LinkUp
		}
		w.send(kind, e, netip.Prefix{}, "")
	}
	if known && before.MTU != e.MTU {
		w.send(LinkChanged, e, netip.Prefix{}, fmt.Sprintf("mtu %d, was %d", e.MTU, before.MTU))
	}
	if known && before.HostDevice != e.HostDevice {
		w.send(LinkChanged, e, netip.Prefix{}, "was "+before.HostDevice)
	}
}

// unlink is told of a device that is gone, and with it what was on it: the kernel
// announces no removal of IPv4 routes then.
func (w *watcher) unlink(index int) {
	e, known := w.links[index]
	if !known {
		return
	}
	delete(w.links, index)
	delete(w.announced, index)
	for n := range w.neighbours {
		if n.index == index {
			delete(w.neighbours, n)
		}
	}
	w.flush(e, "with its device", func(netip.Addr) bool { return true })
	w.send(Detach, e, netip.Prefix{}, "")
}

// flush is told of routes that are gone without an announcement.
func (w *watcher) flush(e datapath.Attached, why string, gone func(netip.Addr) bool) {
	for addr, index := range w.routes {
		if index == e.Index && gone(addr) {
			delete(w.routes, addr)
			w.send(RouteGone, e, netip.PrefixFrom(addr, addr.BitLen()), why)
		}
	}
}

// route is told of a route of ours; index is 0 for a guard of a subnet.
func (w *watcher) route(added bool, dst netip.Prefix, index int) {
	e, known := w.links[index]
	if index != 0 && !known {
		return
	}
	kind, detail := RouteGone, ""
	if added {
		kind = RouteAdded
	}
	switch {
	case index == 0:
		detail = "unreachable: keeps addresses that nobody has from leaking"
	case added && w.routes[dst.Addr()] == index, !added && w.routes[dst.Addr()] != index:
		return // told already
	case added:
		w.routes[dst.Addr()] = index
	default:
		delete(w.routes, dst.Addr())
	}
	w.send(kind, e, dst, detail)
}

// setNeighbour is told of each change of state; only MACs are of interest.
func (w *watcher) setNeighbour(n neighbour, mac string) {
	e, known := w.links[n.index]
	before, had := w.neighbours[n]
	if !known || before == mac && had {
		return
	}
	w.neighbours[n] = mac
	detail := mac
	if had && before != "" {
		detail += ", was " + before
	}
	w.send(NeighbourSet, e, netip.PrefixFrom(n.addr, n.addr.BitLen()), detail)
}

func (w *watcher) forgetNeighbour(n neighbour, mac string) {
	delete(w.neighbours, n)
	if e, known := w.links[n.index]; known {
		w.send(NeighbourGone, e, netip.PrefixFrom(n.addr, n.addr.BitLen()), mac)
	}
}
