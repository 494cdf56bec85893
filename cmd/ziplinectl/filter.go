// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

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
	names      []string       // arguments
}

// bind adds the flags to a command.
func (f *endpointFilter) bind(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.networks, "network", nil, "only this network (more: repeat, or separate by commas)")
	c.Flags().StringSliceVar(&f.containers, "container", nil, "only the container with this id, or an id that begins so")
	c.Flags().StringSliceVar(&f.addresses, "address", nil, "only the endpoint with this address, or with one in this prefix")
	completeFlag(c, "network", func() []string {
		return eachEndpoint(func(e datapath.Attached) []string { return []string{e.Network} })
	})
	completeFlag(c, "container", func() []string {
		return eachEndpoint(func(e datapath.Attached) []string { return []string{e.ContainerID} })
	})
	completeFlag(c, "address", func() []string { return eachEndpoint(func(e datapath.Attached) []string { return texts(e.Addresses) }) })
}

// parse reads the addresses. Returns a usageError.
func (f *endpointFilter) parse(names []string) error {
	f.names = names
	for _, text := range f.addresses {
		prefix, err := parsePrefix(text)
		if err != nil {
			return usageError{fmt.Errorf("address %q: want an address or a prefix", text)}
		}
		f.prefixes = append(f.prefixes, prefix)
	}
	return nil
}

// parsePrefix reads an address as the prefix of itself.
func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		return prefix.Masked(), err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
}

// choose returns the endpoints that the filter lets through, and an error for a
// name that none has.
func (f *endpointFilter) choose(all []datapath.Attached) ([]datapath.Attached, error) {
	for _, name := range f.names {
		if !slices.ContainsFunc(all, func(e datapath.Attached) bool { return hasName(&e, name) }) {
			return nil, fmt.Errorf("no endpoint %q", name)
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(e datapath.Attached) bool { return !f.match(&e) }), nil
}

func (f *endpointFilter) match(e *datapath.Attached) bool {
	return (len(f.networks) == 0 || slices.Contains(f.networks, e.Network)) &&
		(len(f.containers) == 0 || slices.ContainsFunc(f.containers, func(id string) bool { return hasPrefix(e.ContainerID, id) })) &&
		(len(f.prefixes) == 0 || slices.ContainsFunc(e.Addresses, f.hasAddress)) &&
		(len(f.names) == 0 || slices.ContainsFunc(f.names, func(name string) bool { return hasName(e, name) }))
}

func (f *endpointFilter) hasAddress(addr netip.Addr) bool {
	return slices.ContainsFunc(f.prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// hasName says whether people may mean the endpoint: by the start of its
// container's id, its device on the node, or one of its addresses.
func hasName(e *datapath.Attached, name string) bool {
	return hasPrefix(e.ContainerID, name) || e.HostDevice == name ||
		slices.ContainsFunc(e.Addresses, func(a netip.Addr) bool { return a.String() == name })
}

func hasPrefix(s, prefix string) bool { return prefix != "" && strings.HasPrefix(s, prefix) }

// completeFlag lets the shell complete the values of a flag. values may be slow
// and may fail: then there are none.
func completeFlag(c *cobra.Command, flag string, values func() []string) {
	err := c.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return values(), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // no such flag
	}
}

// completeEndpoints completes the names that [hasName] knows.
func completeEndpoints(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	names := eachEndpoint(func(e datapath.Attached) []string { return append(texts(e.Addresses), e.ContainerID, e.HostDevice) })
	return names, cobra.ShellCompDirectiveNoFileComp
}

// eachEndpoint collects words of the endpoints, each once.
func eachEndpoint(words func(datapath.Attached) []string) []string {
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
