// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/datapath/capture"
)

// captureRun is one run of the command.
type captureRun struct {
	*app
	file     string
	duration time.Duration
	options  capture.Options
}

func (a *app) captureCommand() *cobra.Command {
	r := &captureRun{app: a}
	c := &cobra.Command{
		Use:   "capture ENDPOINT [EXPRESSION...]",
		Short: "Record an endpoint's packets as pcapng",
		Long: `Records what a container sends and gets, for Wireshark, tshark and tcpdump. The
packets are seen at the container's own device: also those that eBPF delivers
past the host veth, where tcpdump on the node sees nothing.

EXPRESSION is a filter as tcpdump has it, of which this part is known: host, net,
port and portrange with src and dst; tcp, udp, sctp, icmp, icmp6, igmp, ip, ip6,
arp; proto; ether host; broadcast and multicast; less and greater; and, or, not
and parentheses. What is not known is an error.`,
		Example: `  ziplinectl capture 6f1c -w web.pcapng tcp port 443 and not host 10.77.0.9
  ziplinectl capture 10.77.0.2 -w - | tcpdump -n -r -`,
		Annotations:       map[string]string{needs: needsToCapture},
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeFirst(endpointWords),
		RunE:              func(c *cobra.Command, args []string) error { return r.run(c.Context(), args) },
	}
	flags := c.Flags()
	flags.StringVarP(&r.file, "write", "w", "", "file to write, - for stdout (required)")
	flags.Uint32Var(&r.options.Snaplen, "snaplen", 0, "keep so many bytes of each packet; 0: all")
	flags.Uint64Var(&r.options.Count, "count", 0, "end after so many packets")
	flags.DurationVar(&r.duration, "duration", 0, "end after this time")
	return c
}

func (r *captureRun) run(ctx context.Context, args []string) (err error) {
	r.options.Filter = strings.Join(args[1:], " ")
	switch {
	case r.file == "":
		return usageError{errors.New("say with -w where to write: a file, or - for stdout")}
	case r.file == "-" && isTerminal(r.out):
		return usageError{errors.New("stdout is a terminal: pipe it into a program that reads pcapng")}
	case r.duration < 0:
		return usageError{errors.New("a time that is negative")}
	}
	if err := r.options.Check(); err != nil {
		return usageError{err}
	}
	e, err := oneEndpoint(args[0])
	if err != nil {
		return err
	}
	if r.options.Namespace, r.options.Index, err = e.ContainerDevice(); err != nil {
		return err
	}
	defer func() { _ = r.options.Namespace.Close() }() // only read from
	r.options.Name = label(e)
	r.options.Description = fmt.Sprintf("network %s, container %s, device %s, host device %s", e.Network, e.ContainerID, e.IfName, e.HostDevice)
	r.options.Application = "ziplinectl " + release
	r.options.Ready = func() { r.say("capturing %s; ends with Ctrl-C", r.options.Name) }
	if r.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.duration)
		defer cancel()
	}
	return r.record(ctx)
}

// oneEndpoint returns the endpoint with this name. Returns a usageError.
func oneEndpoint(name string) (datapath.Attached, error) {
	all, err := datapath.Endpoints()
	if err != nil {
		return datapath.Attached{}, err
	}
	found, err := (&endpointFilter{names: []string{name}}).choose(all)
	switch {
	case err != nil:
		return datapath.Attached{}, err
	case len(found) > 1:
		return datapath.Attached{}, usageError{fmt.Errorf("%d endpoints are called %q: say more of the name, or the host device", len(found), name)}
	}
	return found[0], nil
}

// record writes to the file, or to stdout.
func (r *captureRun) record(ctx context.Context) error {
	if r.file == "-" {
		return r.write(ctx, r.out)
	}
	file, err := os.OpenFile(r.file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("open file: %w", err)
	}
	return errors.Join(r.write(ctx, file), file.Close())
}

func (r *captureRun) write(ctx context.Context, to io.Writer) error {
	sum, err := capture.Run(ctx, to, r.options)
	if err == nil || errors.Is(err, capture.ErrDown) {
		r.say("%s, %d dropped", plural(uint64(sum.Packets), "packet"), sum.Dropped)
	}
	return err
}
