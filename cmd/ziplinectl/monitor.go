// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath/watch"
	"github.com/zipline-cni/zipline/ipam"
)

// eventTime has what puts the events of one ADD in order.
const eventTime = "2006-01-02T15:04:05.000000Z07:00"

// The kinds of event that package watch does not have.
const (
	eventLease   = "lease made"
	eventRelease = "lease released"
)

type eventJSON struct {
	Time        string `json:"time" doc:"when it was seen (RFC 3339, UTC, with microseconds)"`
	Event       string `json:"event" doc:"attach, detach, link up, link down, link changed, address added, address removed, route added, route removed, neighbour set, neighbour removed, lease made, lease released, events lost"`
	Network     string `json:"network" doc:"name of the network; empty where it is not known yet"`
	ContainerID string `json:"containerId" doc:"the runtime's id of the container"`
	IfName      string `json:"ifName" doc:"the device in the container"`
	Device      string `json:"device" doc:"the endpoint's device on the node; empty for leases and subnet guards"`
	Address     string `json:"address" doc:"of an address, route, neighbour or lease; empty for others"`
	Detail      string `json:"detail" doc:"what else there is to say"`
}

func (a *app) monitorCommand() *cobra.Command {
	var dirs []string
	c := describes(eventJSON{}, &cobra.Command{
		Use:   "monitor",
		Short: "Print what happens to endpoints, routes and leases, as it happens",
		Long: `monitor prints a line for each attachment, detachment, change of a link, address,
route, neighbour or lease, until it is interrupted. It listens to the kernel's
announcements (rtnetlink, inotify) and costs nothing while nothing happens. With
-o json each line is one object.

Where more happens than it can read it says "events lost", and then what is
different since. The kernel announces no TC programs.`,
		Example: `  ziplinectl monitor
  ziplinectl monitor -o json | jq -c 'select(.event == "attach")'`,
		RunE: func(c *cobra.Command, _ []string) error { return a.monitor(c.Context(), dirs) },
	})
	bindDataDirs(c, &dirs)
	return c
}

// monitor runs until ctx ends, or one of the watches cannot go on.
func (a *app) monitor(ctx context.Context, dirs []string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var lock sync.Mutex
	var errs []error
	fail := func(err error) {
		lock.Lock()
		defer lock.Unlock()
		if err != nil {
			errs = append(errs, err)
			stop()
		}
	}
	tell := func(e eventJSON) {
		fail(func() error {
			lock.Lock()
			defer lock.Unlock()
			return a.printLine(e, e.line())
		}())
	}
	var ready, done sync.WaitGroup
	start := func(watch func(ready func()) error) {
		ready.Add(1)
		once := sync.OnceFunc(ready.Done)
		done.Go(func() {
			defer once()
			fail(watch(once))
		})
	}
	start(func(ready func()) error {
		return watch.Watch(ctx, ready, func(e watch.Event) { tell(newEventJSON(e)) })
	})
	for _, dir := range dirs {
		start(func(ready func()) error {
			return ipam.Watch(ctx, dir, ready, func(c ipam.Change) { tell(newLeaseEvent(c)) })
		})
	}
	ready.Wait()
	if ctx.Err() == nil {
		a.say("listening; ends with Ctrl-C")
	}
	done.Wait()
	return errors.Join(errs...)
}

func newEventJSON(e watch.Event) eventJSON {
	v := eventJSON{
		Time: e.Time.UTC().Format(eventTime), Event: string(e.Kind), Network: e.Endpoint.Network, ContainerID: e.Endpoint.ContainerID,
		IfName: e.Endpoint.IfName, Device: e.Endpoint.HostDevice, Detail: e.Detail,
	}
	if e.Address.IsValid() {
		v.Address = prefixText(e.Address)
	}
	return v
}

func newLeaseEvent(c ipam.Change) eventJSON {
	v := eventJSON{Time: c.Time.UTC().Format(eventTime), Event: eventLease, Network: c.Network, ContainerID: c.Owner.ContainerID, IfName: c.Owner.IfName}
	switch {
	case c.Lost:
		v.Event, v.Detail = string(watch.EventsWereLost), "of leases: what follows is different since"
		return v
	case c.Released:
		v.Event = eventRelease
	}
	v.Address = c.Address.String()
	return v
}

// prefixText leaves out the length of a single address.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// line is the event for people.
func (e *eventJSON) line() string {
	words := []string{e.Time, fmt.Sprintf("%-17s", e.Event)}
	if who := strings.Trim(e.Network+"/"+short(e.ContainerID)+"/"+e.IfName, "/"); who != "" {
		words = append(words, who)
	}
	for _, word := range []string{e.Device, e.Address} {
		if word != "" {
			words = append(words, word)
		}
	}
	if e.Detail != "" {
		words = append(words, "("+e.Detail+")")
	}
	return strings.TrimRight(strings.Join(words, " "), " ")
}
