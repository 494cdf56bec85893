// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/loader/trace"
)

// traceFlags are the flags of trace.
type traceFlags struct {
	endpoints, networks, addresses, protocols, verdicts, reasons, hooks []string
	ports                                                               []uint
	count                                                               bool
	interval, duration                                                  time.Duration
	sample                                                              uint32
	rate, limit                                                         uint64
}

func (f *traceFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringSliceVar(&f.endpoints, "endpoint", nil, "endpoint at either end: container id or a prefix of it, host device, or address")
	flags.StringSliceVar(&f.networks, "network", nil, "network of an endpoint at either end")
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
}

// options makes of the flags what the tracer wants. Returns a usageError.
func (f *traceFlags) options(names *endpointNames) (trace.Options, error) {
	o := trace.Options{Count: f.count, Sample: f.sample, Rate: f.rate}
	var errs []error
	errs = append(errs, f.addPackets(&o.Filter), f.addDecisions(&o.Filter), f.addEndpoints(&o.Filter, names))
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
		prefix, err := packetPrefix(text)
		if err != nil {
			return fmt.Errorf("address %q: want an address or a prefix", text)
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
		number, known := protocolNames[text]
		switch {
		case text == "arp":
			filter.ARP = true
			continue
		case !known:
			n, err := strconv.ParseUint(text, 10, 8)
			if err != nil {
				return fmt.Errorf("protocol %q: want %s, arp or a number", text, strings.Join(slices.Sorted(maps.Keys(protocolNames)), ", "))
			}
			number = uint8(n)
		}
		filter.Protocols = append(filter.Protocols, number)
	}
	return nil
}

func packetPrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err
}

// addDecisions adds hooks and reasons. A verdict is all of its reasons.
func (f *traceFlags) addDecisions(filter *trace.Filter) error {
	for _, text := range f.hooks {
		hook := bpf.Hook(0)
		for hook < bpf.Hooks && hook.String() != text {
			hook++
		}
		if hook == bpf.Hooks {
			return fmt.Errorf("hook %q: want from_endpoint, from_uplink or to_device", text)
		}
		filter.Hooks = append(filter.Hooks, hook)
	}
	all := bpf.ReasonsByToken()
	for _, text := range f.verdicts {
		if text != "redirect" && text != "drop" && text != "next" {
			return fmt.Errorf("verdict %q: want redirect, drop or next", text)
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

func (f *traceFlags) addEndpoints(filter *trace.Filter, names *endpointNames) error {
	for _, text := range f.endpoints {
		e, err := names.find(text)
		if err != nil {
			return err
		}
		filter.Devices = append(filter.Devices, e.Index)
	}
	if len(f.networks) == 0 {
		return nil
	}
	indexes := names.ofNetworks(f.networks)
	if len(f.endpoints) > 0 {
		// Both must be met: an endpoint that is in the network.
		filter.Devices = slices.DeleteFunc(filter.Devices, func(i int) bool { return !slices.Contains(indexes, i) })
	} else {
		filter.Devices = indexes
	}
	filter.OnlyDevices = true
	return nil
}
