// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var protocolNumbers = map[string]uint8{
	"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP, "icmpv6": unix.IPPROTO_ICMPV6,
	"sctp": unix.IPPROTO_SCTP, "dccp": unix.IPPROTO_DCCP, "udplite": unix.IPPROTO_UDPLITE, "gre": unix.IPPROTO_GRE,
}

// protocolName returns the name of a protocol of IP, "" for one without.
func protocolName(number uint8) string {
	for name, n := range protocolNumbers {
		if n == number {
			return name
		}
	}
	return ""
}

// parseProtocol reads a name, in whatever case, or a number.
func parseProtocol(text string) (uint8, error) {
	if number, known := protocolNumbers[strings.ToLower(text)]; known {
		return number, nil
	}
	number, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q: want %s or a number", text, strings.Join(slices.Sorted(maps.Keys(protocolNumbers)), ", "))
	}
	return uint8(number), nil
}
