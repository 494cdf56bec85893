// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
)

// endpointFilter chooses endpoints. What is given more than once is an "or",
// different flags are an "and"; nothing given chooses all.
type endpointFilter struct {
	networks   []string
	containers []string
	addresses  []string
	prefixes   []netip.Prefix // of addresses
	names      []string
}

// bind adds the flags of a list of endpoints, whose arguments are the names.
func (f *endpointFilter) bind(c *cobra.Command) {
	f.bindNetworks(c, "only this network (more: repeat, or separate by commas)")
	c.Flags().StringSliceVar(&f.containers, "container", nil, "only the container with this id, or an id that begins so")
	c.Flags().StringSliceVar(&f.addresses, "address", nil, "only the endpoint with this address, or with one in this prefix")
	completeFlag(c, "container", func() []string {
		return eachEndpoint(func(e datapath.Attached) []string { return []string{e.ContainerID} })
	})
	completeFlag(c, "address", func() []string { return eachEndpoint(func(e datapath.Attached) []string { return texts(e.Addresses) }) })
}

// bindNames adds the flags of a command that is about packets of endpoints.
func (f *endpointFilter) bindNames(c *cobra.Command, what string) {
	c.Flags().StringSliceVar(&f.names, "endpoint", nil, what+" with this `name`: the start of a container id, network/id, host device or address")
	completeFlag(c, "endpoint", endpointWords)
	f.bindNetworks(c, what+" of this `network`")
}

func (f *endpointFilter) bindNetworks(c *cobra.Command, usage string) {
	c.Flags().StringSliceVar(&f.networks, "network", nil, usage)
	completeFlag(c, "network", func() []string {
		return eachEndpoint(func(e datapath.Attached) []string { return []string{e.Network} })
	})
}

// given says whether it chooses at all.
func (f *endpointFilter) given() bool {
	return len(f.networks)+len(f.containers)+len(f.addresses)+len(f.names) > 0
}

// parse reads the addresses. Returns a usageError.
func (f *endpointFilter) parse() error {
	for _, text := range f.addresses {
		prefix, err := parsePrefix(text)
		if err != nil {
			return usageError{err}
		}
		f.prefixes = append(f.prefixes, prefix)
	}
	return nil
}

// parsePrefix reads an address as the prefix of itself.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("address %q: want an address or a prefix", text)
	}
	return prefix.Masked(), nil
}

// choose returns the endpoints that the filter lets through, and a usageError for
// a name that none has.
func (f *endpointFilter) choose(all []datapath.Attached) ([]datapath.Attached, error) {
	named := map[string]bool{} // by their devices
	for _, name := range f.names {
		found := called(all, name)
		if len(found) == 0 {
			return nil, usageError{fmt.Errorf("no endpoint %q: want the start of a container id, network/id, a host device or an address (ziplinectl endpoints lists them)", name)}
		}
		for _, e := range found {
			named[e.HostDevice] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(e datapath.Attached) bool {
		return len(f.names) > 0 && !named[e.HostDevice] || !f.match(&e)
	}), nil
}

func (f *endpointFilter) match(e *datapath.Attached) bool {
	return (len(f.networks) == 0 || slices.Contains(f.networks, e.Network)) &&
		(len(f.containers) == 0 || slices.ContainsFunc(f.containers, func(id string) bool { return hasPrefix(e.ContainerID, id) })) &&
		(len(f.prefixes) == 0 || slices.ContainsFunc(e.Addresses, f.hasAddress))
}

func (f *endpointFilter) hasAddress(addr netip.Addr) bool {
	return slices.ContainsFunc(f.prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// called returns the endpoints that people may mean by a name: those that are
// called exactly so or, where none is, whose container's id begins so.
func called(all []datapath.Attached, name string) []datapath.Attached {
	addr, _ := netip.ParseAddr(name) // invalid: no endpoint's
	addr = addr.Unmap()
	network, id, qualified := strings.Cut(name, "/")
	if !qualified {
		network, id = "", name
	}
	var exact, begun []datapath.Attached
	for _, e := range all {
		here := network == "" || e.Network == network
		switch {
		case e.HostDevice == name, slices.Contains(e.Addresses, addr), here && id != "" && e.ContainerID == id:
			exact = append(exact, e)
		case here && hasPrefix(e.ContainerID, id):
			begun = append(begun, e)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return begun
}

func hasPrefix(s, prefix string) bool { return prefix != "" && strings.HasPrefix(s, prefix) }

// completeFlag lets the shell complete the values of a flag. values may fail: then
// there are none.
func completeFlag(c *cobra.Command, flag string, values func() []string) {
	err := c.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return values(), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // no such flag
	}
}

// completeEndpoints completes the names that [called] knows.
func completeEndpoints(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return endpointWords(), cobra.ShellCompDirectiveNoFileComp
}

// completeFirst completes the first argument only.
func completeFirst(words func() []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return words(), cobra.ShellCompDirectiveNoFileComp
	}
}

func endpointWords() []string {
	return eachEndpoint(func(e datapath.Attached) []string { return append(texts(e.Addresses), e.ContainerID, e.HostDevice) })
}

// completionTime is how long a shell is kept waiting for words.
const completionTime = time.Second

// inTime ends the process, for want of words, unless the timer is stopped before:
// somebody may hold the lock of all network devices.
func inTime() *time.Timer {
	return time.AfterFunc(completionTime, func() { os.Exit(exitFailure) })
}

// deviceWords are the names of all devices.
func deviceWords() (names []string) {
	defer inTime().Stop()
	devices, _ := net.Interfaces() // a completion has nobody to tell
	for _, d := range devices {
		names = append(names, d.Name)
	}
	return names
}

// eachEndpoint collects words of the endpoints, each once, for a completion.
func eachEndpoint(words func(datapath.Attached) []string) []string {
	defer inTime().Stop()
	endpoints, err := datapath.Endpoints()
	if err != nil {
		return nil // a completion has nobody to tell
	}
	var list []string
	for _, e := range endpoints {
		list = append(list, words(e)...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
