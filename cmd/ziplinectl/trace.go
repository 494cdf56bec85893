// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/loader/trace"
)

// traceRun is one run of the command.
type traceRun struct {
	*app
	flags    traceFlags
	names    *endpointNames
	tracer   *trace.Tracer
	printed  uint64
	deadline time.Time
}

func (a *app) traceCommand() *cobra.Command {
	r := &traceRun{app: a}
	c := &cobra.Command{
		Use:   "trace",
		Short: "Show what the programs decide about each packet, and why",
		Long: `Shows, packet by packet, what the eBPF programs decide: the endpoint, the
direction, the addresses and ports, the verdict, its reason, and what the packet
was translated to. redirect: carried past the stack; drop: not delivered; next:
left to the stack, which then forwards it.

A GSO packet is one event. Filters are evaluated in the kernel, and while nobody
traces a jump that is not taken is all that is left in the programs. What was not
shown because of --rate or because it came too fast is told on stderr at the end.
One process at a time can trace a node.

JSON is one object per line; with --count it is a list of objects with endpoint,
network, containerId, hook, verdict, reason, packets and bytes.`,
		Example: `  ziplinectl trace --endpoint 6f1c --verdict drop
  ziplinectl trace --address 10.77.0.0/16 --port 443 --limit 20
  ziplinectl trace --count --duration 10s`,
		Annotations: map[string]string{needs: needsRoot},
		RunE:        func(c *cobra.Command, _ []string) error { return r.run(c.Context()) },
	}
	r.flags.register(c)
	return describesWith("--count", []traceCountJSON{}, describes(traceEventJSON{}, c))
}

func (r *traceRun) run(ctx context.Context) (err error) {
	if r.names, err = newEndpointNames(); err != nil {
		return err
	}
	options, err := r.flags.options(r.names.list)
	if err != nil {
		return err
	}
	if r.tracer, err = trace.Open(options); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.tracer.Close()) }()
	if r.flags.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.flags.duration)
		defer cancel()
	}
	r.say("watching; ends with Ctrl-C")
	if r.flags.count {
		err = r.count(ctx)
	} else {
		err = r.stream(ctx)
	}
	return errors.Join(err, r.tellMissed())
}

// refreshEvery is how often programs of a new version, and endpoints that have
// come, are looked for.
const refreshEvery = 2 * time.Second

// stream prints events until the context ends or there were as many as asked for.
func (r *traceRun) stream(ctx context.Context) error {
	refresh := time.Now().Add(refreshEvery)
	for ctx.Err() == nil {
		event, err := r.tracer.Read(time.Now().Add(100 * time.Millisecond))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return err
		default:
			if err := r.printEvent(event); err != nil {
				return err
			}
			if r.printed++; r.flags.limit > 0 && r.printed >= r.flags.limit {
				return nil
			}
		}
		if time.Now().After(refresh) {
			if err := r.refresh(); err != nil {
				return err
			}
			refresh = time.Now().Add(refreshEvery)
		}
	}
	return nil
}

func (r *traceRun) refresh() error {
	if err := r.tracer.Refresh(); err != nil {
		return err
	}
	return r.names.refresh()
}

// count prints what was added up, at each interval and at the end.
func (r *traceRun) count(ctx context.Context) error {
	var tick <-chan time.Time
	if r.flags.interval > 0 {
		ticker := time.NewTicker(r.flags.interval)
		defer ticker.Stop()
		tick = ticker.C
	}
	again := time.NewTicker(refreshEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.printCounts()
		case <-again.C:
			if err := r.refresh(); err != nil {
				return err
			}
		case <-tick:
			if err := r.printCounts(); err != nil {
				return err
			}
		}
	}
}

type traceCountJSON struct {
	Endpoint    string `json:"endpoint" doc:"host device of the endpoint"`
	Network     string `json:"network" doc:"its network"`
	ContainerID string `json:"containerId" doc:"its container"`
	Hook        string `json:"hook" doc:"program"`
	Verdict     string `json:"verdict" doc:"redirect, drop or next"`
	Reason      string `json:"reason" doc:"in one word"`
	Packets     uint64 `json:"packets" doc:"a GSO packet counts once"`
	Bytes       uint64 `json:"bytes" doc:"with the Ethernet header"`
}

func (r *traceRun) printCounts() error {
	counts, err := r.tracer.Counts()
	if err != nil {
		return err
	}
	rows, labels := []traceCountJSON{}, []string{}
	for _, c := range counts {
		e := r.names.byIndex(c.Endpoint)
		rows = append(rows, traceCountJSON{
			e.HostDevice, e.Network, e.ContainerID, c.Hook.String(), c.Reason.Verdict().String(), c.Reason.Token(), c.Packets, c.Bytes,
		})
		labels = append(labels, r.names.label(c.Endpoint))
	}
	return r.print(rows, func(g *grid) { traceCountRows(g, rows, labels) })
}

func traceCountRows(g *grid, rows []traceCountJSON, labels []string) {
	g.heading("ENDPOINT", "HOOK", "VERDICT", "REASON", "PACKETS", "BYTES")
	for i, row := range rows {
		g.row(labels[i], row.Hook, paintVerdict(g, row.Verdict), row.Reason, number(row.Packets), number(row.Bytes))
	}
}

// printEvent writes a line.
func (r *traceRun) printEvent(e *trace.Event) error {
	if r.format == formatJSON {
		return r.printLine(r.eventJSON(e), "")
	}
	return r.printLine(nil, r.eventLine(e))
}

// tellMissed says on stderr what was not shown.
func (r *traceRun) tellMissed() error {
	missed, err := r.tracer.Missed()
	if err != nil {
		return err
	}
	if missed.Lost > 0 {
		r.say("%d events lost: they came faster than they could be read", missed.Lost)
	}
	if missed.Suppressed > 0 {
		r.say("%d events not shown: over --rate %d a second", missed.Suppressed, r.flags.rate)
	}
	return nil
}
