// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader/trace"
)

// traceFlags are the flags of trace.
type traceFlags struct {
	endpoints                                      endpointFilter
	addresses, protocols, verdicts, reasons, hooks []string
	ports                                          []uint
	count                                          bool
	interval, duration                             time.Duration
	sample                                         uint32
	rate, limit                                    uint64
}

func (f *traceFlags) register(c *cobra.Command) {
	flags := c.Flags()
	f.endpoints.bindNames(c, "either end is an endpoint")
	flags.StringSliceVar(&f.addresses, "address", nil, "address or prefix of either end, before or after translation")
	flags.UintSliceVar(&f.ports, "port", nil, "port of either end, before or after translation")
	flags.StringSliceVar(&f.protocols, "protocol", nil, "tcp, udp, icmp, icmpv6, sctp, arp, or a number")
	flags.StringSliceVar(&f.verdicts, "verdict", nil, "redirect, drop or next")
	flags.StringSliceVar(&f.reasons, "reason", nil, "reason, as it is shown")
	flags.StringSliceVar(&f.hooks, "hook", nil, "from_endpoint, from_uplink or to_device")
	flags.BoolVar(&f.count, "count", false, "add up in the kernel by endpoint, hook, verdict and reason; print at the end")
	flags.DurationVar(&f.interval, "interval", 0, "with --count: print each time this has passed, too")
	flags.Uint32Var(&f.sample, "sample", 0, "show one event in so many, drawn at random")
	flags.Uint64Var(&f.rate, "rate", 1000, "show at most so many events a second; 0: all")
	flags.DurationVar(&f.duration, "duration", 0, "end after this time")
	flags.Uint64Var(&f.limit, "limit", 0, "end after so many events")
	completeFlag(c, "protocol", func() []string { return append(slices.Sorted(maps.Keys(protocolNumbers)), "arp") })
	completeFlag(c, "verdict", func() []string { return traceVerdicts })
	completeFlag(c, "reason", func() []string { return slices.Sorted(maps.Keys(bpf.ReasonsByToken())) })
	completeFlag(c, "hook", traceHooks)
}

var traceVerdicts = []string{"redirect", "drop", "next"}

func traceHooks() (names []string) {
	for hook := range int(bpf.Hooks) {
		names = append(names, bpf.Hook(hook).String())
	}
	return names
}

// options makes of the flags what the tracer wants. Returns a usageError.
func (f *traceFlags) options(all []datapath.Attached) (trace.Options, error) {
	o := trace.Options{Count: f.count, Sample: f.sample, Rate: f.rate}
	var errs []error
	errs = append(errs, f.addPackets(&o.Filter), f.addDecisions(&o.Filter), f.addEndpoints(&o.Filter, all))
	if f.count && (f.sample > 1 || f.limit > 0) {
		errs = append(errs, errors.New("--count adds up every packet: no --sample and no --limit"))
	}
	if f.interval != 0 && !f.count {
		errs = append(errs, errors.New("--interval is for --count"))
	}
	if f.interval < 0 || f.duration < 0 {
		errs = append(errs, errors.New("a time that is negative"))
	}
	for _, err := range errs {
		if err != nil {
			return o, usageError{err}
		}
	}
	return o, nil
}

func (f *traceFlags) addPackets(filter *trace.Filter) error {
	for _, text := range f.addresses {
		prefix, err := parsePrefix(text)
		if err != nil {
			return err
		}
		filter.Prefixes = append(filter.Prefixes, prefix)
	}
	for _, port := range f.ports {
		if port == 0 || port > 65535 {
			return fmt.Errorf("port %d: want 1 to 65535", port)
		}
		filter.Ports = append(filter.Ports, uint16(port))
	}
	for _, text := range f.protocols {
		if text == "arp" {
			filter.ARP = true
			continue
		}
		number, err := parseProtocol(text)
		if err != nil {
			return fmt.Errorf("%w, or arp", err)
		}
		filter.Protocols = append(filter.Protocols, number)
	}
	return nil
}

// addDecisions adds hooks and reasons. A verdict is all of its reasons.
func (f *traceFlags) addDecisions(filter *trace.Filter) error {
	for _, text := range f.hooks {
		hook := slices.Index(traceHooks(), text)
		if hook < 0 {
			return fmt.Errorf("hook %q: want one of %s", text, strings.Join(traceHooks(), ", "))
		}
		filter.Hooks = append(filter.Hooks, bpf.Hook(hook))
	}
	all := bpf.ReasonsByToken()
	for _, text := range f.verdicts {
		if !slices.Contains(traceVerdicts, text) {
			return fmt.Errorf("verdict %q: want one of %s", text, strings.Join(traceVerdicts, ", "))
		}
	}
	for _, text := range f.reasons {
		if _, ok := all[text]; !ok {
			return fmt.Errorf("reason %q: want one of %s", text, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
		}
	}
	if len(f.verdicts) == 0 && len(f.reasons) == 0 {
		return nil
	}
	for token, reason := range all {
		if (len(f.reasons) == 0 || slices.Contains(f.reasons, token)) &&
			(len(f.verdicts) == 0 || slices.Contains(f.verdicts, reason.Verdict().String())) {
			filter.Reasons = append(filter.Reasons, reason)
		}
	}
	if len(filter.Reasons) == 0 {
		return errors.New("no such reason has such a verdict")
	}
	return nil
}

func (f *traceFlags) addEndpoints(filter *trace.Filter, all []datapath.Attached) error {
	if !f.endpoints.given() {
		return nil
	}
	chosen, err := f.endpoints.choose(all)
	if err != nil {
		return err
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no such endpoint of network %s on this node", strings.Join(f.endpoints.networks, ", "))
	}
	for _, e := range chosen {
		filter.Devices = append(filter.Devices, e.Index)
	}
	return nil
}
