// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"fmt"
	"net/netip"
	"strings"
)

// argsKey is the ConfigError key of everything in the environment variable.
const argsKey = "CNI_ARGS"

// parseArgs returns the address of IP= in CNI_ARGS, "K=V;K2=V2", or the zero
// Addr. Its rules are those of the CNI library: names in their exact case, the
// last of a repeated name counts, and a name other than IP and IgnoreUnknown is
// an error unless IgnoreUnknown is true.
func parseArgs(args string) (netip.Addr, error) {
	var addr netip.Addr
	if args == "" {
		return addr, nil
	}
	ignore := false
	var unknown []string
	for pair := range strings.SplitSeq(args, ";") {
		name, value, found := strings.Cut(pair, "=")
		if !found || strings.Contains(value, "=") {
			return netip.Addr{}, &ConfigError{argsKey, fmt.Sprintf("invalid pair %q", pair)}
		}
		var err error
		switch name {
		case "IP":
			addr, err = parseArgsIP(value)
		case "IgnoreUnknown":
			ignore, err = parseArgsBool(value)
		default:
			unknown = append(unknown, pair)
		}
		if err != nil {
			return netip.Addr{}, err
		}
	}
	if len(unknown) > 0 && !ignore {
		return netip.Addr{}, &ConfigError{argsKey, fmt.Sprintf("unknown args %q", unknown)}
	}
	return addr, nil
}

func parseArgsIP(value string) (netip.Addr, error) {
	if value == "" {
		return netip.Addr{}, nil
	}
	addr, ok := parseHostAddr(value)
	if !ok {
		return netip.Addr{}, &ConfigError{argsKey + " IP", fmt.Sprintf("invalid IP address %q", value)}
	}
	return addr, nil
}

func parseArgsBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, &ConfigError{argsKey + " IgnoreUnknown", fmt.Sprintf("want true or false, not %q", value)}
}
