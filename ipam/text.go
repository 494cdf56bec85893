// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// text is a JSON string that is understood after decoding, when the path of its
// key is known: an error of encoding/json from inside a list doesn't name it.
type text struct {
	value string
	// wrong is the JSON type of a value that is not a string; "null" may stand
	// for an absent key, as it does for most types in encoding/json.
	wrong string
	given bool
}

// UnmarshalJSON never fails for a JSON value.
func (t *text) UnmarshalJSON(data []byte) error {
	*t = text{given: true}
	switch data[0] {
	case '"':
		return json.Unmarshal(data, &t.value)
	case 'n':
		t.wrong = "null"
	case '{':
		t.wrong = "object"
	case '[':
		t.wrong = "array"
	case 't', 'f':
		t.wrong = "bool"
	default:
		t.wrong = "number"
	}
	return nil
}

// address returns the address, or the zero Addr if the key is absent, null or
// empty, which all mean the same to host-local.
func (t text) address(key string) (netip.Addr, error) {
	switch {
	case !t.given || t.wrong == "null" || t.wrong == "" && t.value == "":
		return netip.Addr{}, nil
	case t.wrong != "":
		return netip.Addr{}, &ConfigError{key, fmt.Sprintf("want an IP address in a string, not a JSON %s", t.wrong)}
	}
	addr, ok := parseAddr(t.value)
	if !ok {
		return netip.Addr{}, &ConfigError{key, fmt.Sprintf("invalid IP address %q", t.value)}
	}
	return addr, nil
}

// hostAddress returns the address of a string that may have a prefix length
// behind it. The prefix length is of no interest, the range's subnet decides.
func (t text) hostAddress(key string) (netip.Addr, error) {
	if t.wrong != "" {
		return netip.Addr{}, &ConfigError{key, fmt.Sprintf("want an IP address in a string, not a JSON %s", t.wrong)}
	}
	addr, ok := parseHostAddr(t.value)
	if !ok {
		return netip.Addr{}, &ConfigError{key, fmt.Sprintf("invalid IP address %q", t.value)}
	}
	return addr, nil
}

// prefix returns the CIDR with its host bits as written.
func (t text) prefix(key string) (netip.Prefix, error) {
	switch {
	case !t.given:
		return netip.Prefix{}, &ConfigError{key, "missing"}
	case t.wrong != "":
		return netip.Prefix{}, &ConfigError{key, fmt.Sprintf("want a CIDR in a string, not a JSON %s", t.wrong)}
	}
	// net.ParseCIDR and not netip.ParsePrefix: the latter refuses "/024".
	ip, subnet, err := net.ParseCIDR(t.value)
	if err != nil {
		return netip.Prefix{}, &ConfigError{key, fmt.Sprintf("invalid CIDR %q", t.value)}
	}
	addr, _ := netip.AddrFromSlice(ip)
	addr = addr.Unmap()
	ones, bits := subnet.Mask.Size()
	if addr.BitLen() != bits {
		return netip.Prefix{}, &ConfigError{key, fmt.Sprintf("%s is an IPv4 address with an IPv6 prefix length", t.value)}
	}
	return netip.PrefixFrom(addr, ones), nil
}

// parseAddr reads an address as net.ParseIP does: no zone, and an IPv4 address
// written as IPv6 is the IPv4 address.
func parseAddr(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

// parseHostAddr is parseAddr for <address>[/<prefix length>].
func parseHostAddr(s string) (netip.Addr, bool) {
	if !strings.Contains(s, "/") {
		return parseAddr(s)
	}
	ip, _, err := net.ParseCIDR(s)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}
