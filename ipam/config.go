// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// DefaultDataDir is where host-local keeps a directory of leases for each
// network, unless the configuration has another ipam.dataDir.
const DefaultDataDir = "/var/lib/cni/networks"

// nameRule is the CNI library's rule for network names. The name becomes part of
// a path.
var nameRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`)

// rawConfig is what host-local decodes, in the same shape: encoding/json then
// gives the same meaning to the case of keys, to repeated keys and to null.
type rawConfig struct {
	Name          string   `json:"name"`
	CNIVersion    string   `json:"cniVersion"`
	IPAM          *rawIPAM `json:"ipam"`
	RuntimeConfig struct {
		IPRanges [][]rawRange `json:"ipRanges"`
		IPs      []text       `json:"ips"`
	} `json:"runtimeConfig"`
	Args *struct {
		CNI *struct {
			IPs []text `json:"ips"`
		} `json:"cni"`
	} `json:"args"`
}

// rawIPAM embeds the range of the time before range sets.
type rawIPAM struct {
	rawRange
	Name       string       // unused, but of a type that host-local insists on
	Type       string       `json:"type"`
	Routes     []*rawRoute  `json:"routes"`
	DataDir    string       `json:"dataDir"`
	ResolvConf string       `json:"resolvConf"`
	Ranges     [][]rawRange `json:"ranges"`
}

type rawRange struct {
	RangeStart text `json:"rangeStart"`
	RangeEnd   text `json:"rangeEnd"`
	Subnet     text `json:"subnet"`
	Gateway    text `json:"gateway"`
}

// request is an address that the caller asks for.
type request struct {
	addr netip.Addr
	key  string // where it was asked for
}

// config is a network's configuration after validation.
type config struct {
	name       string
	dataDir    string
	resolvConf string
	sets       []rangeSet
	routes     []Route
	requests   []request // each address once
}

// parseConfig reads a network configuration and CNI_ARGS. It accepts and refuses
// what host-local does, except that it also refuses what host-local stumbles over
// later: a name with which no plugin would be called, a requested address that is
// null, a route that is null or has no dst, and a range that starts behind its
// default end (the broadcast address; host-local would lease on into the next
// subnet). Errors are *ConfigError.
func parseConfig(stdin []byte, args string) (*config, error) {
	var raw rawConfig
	if err := json.Unmarshal(stdin, &raw); err != nil {
		return nil, decodeError(err)
	}
	if raw.IPAM == nil {
		return nil, &ConfigError{"ipam", "missing"}
	}
	if !nameRule.MatchString(raw.Name) {
		return nil, &ConfigError{"name", fmt.Sprintf("missing or invalid network name %q", raw.Name)}
	}
	c := &config{name: raw.Name, dataDir: raw.IPAM.DataDir, resolvConf: raw.IPAM.ResolvConf}
	if c.dataDir == "" {
		c.dataDir = DefaultDataDir
	}
	var err error
	if c.requests, err = newRequests(&raw, args); err != nil {
		return nil, err
	}
	if c.sets, err = newRangeSets(&raw); err != nil {
		return nil, err
	}
	c.routes, err = newRoutes(raw.IPAM.Routes)
	return c, err
}

// decodeError names the key of a value of the wrong type.
func decodeError(err error) error {
	var typeError *json.UnmarshalTypeError
	if errors.As(err, &typeError) {
		return &ConfigError{typeError.Field, fmt.Sprintf("want %s, not a JSON %s", jsonType(typeError.Type), typeError.Value)}
	}
	return &ConfigError{"", "decode network configuration: " + err.Error()}
}

// jsonType names the JSON type that a Go type is decoded from.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Pointer:
		return "an object"
	case reflect.Slice:
		return "an array"
	case reflect.Int:
		return "an integer"
	}
	return "a " + t.Kind().String()
}

// newRequests collects the requested addresses from CNI_ARGS, args.cni.ips and
// runtimeConfig.ips.
func newRequests(raw *rawConfig, args string) ([]request, error) {
	var requests []request
	add := func(addr netip.Addr, key string) {
		for _, known := range requests {
			if known.addr == addr {
				return
			}
		}
		requests = append(requests, request{addr, key})
	}
	addr, err := parseArgs(args)
	if err != nil {
		return nil, err
	}
	if addr.IsValid() {
		add(addr, argsKey+" IP")
	}
	var fromArgs []text
	if raw.Args != nil && raw.Args.CNI != nil {
		fromArgs = raw.Args.CNI.IPs
	}
	for _, list := range []struct {
		path string
		ips  []text
	}{{"args.cni.ips", fromArgs}, {"runtimeConfig.ips", raw.RuntimeConfig.IPs}} {
		for i, ip := range list.ips {
			key := fmt.Sprintf("%s[%d]", list.path, i)
			addr, err := ip.hostAddress(key)
			if err != nil {
				return nil, err
			}
			add(addr, key)
		}
	}
	return requests, nil
}

// newRangeSets orders the range sets as host-local does: those of the runtime,
// then the one of the older keys, then those of the configuration.
func newRangeSets(raw *rawConfig) ([]rangeSet, error) {
	var sets []rangeSet
	for i, set := range raw.RuntimeConfig.IPRanges {
		s, err := newRangeSet(set, fmt.Sprintf("runtimeConfig.ipRanges[%d]", i))
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	if !raw.IPAM.Subnet.given {
		// The other keys say nothing without a subnet, but must be addresses.
		if _, err := raw.IPAM.bounds("ipam"); err != nil {
			return nil, err
		}
	} else {
		r, err := newRange(raw.IPAM.rawRange, "ipam")
		if err != nil {
			return nil, err
		}
		sets = append(sets, rangeSet{r})
	}
	for i, set := range raw.IPAM.Ranges {
		s, err := newRangeSet(set, fmt.Sprintf("ipam.ranges[%d]", i))
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	if len(sets) == 0 {
		return nil, &ConfigError{"ipam.ranges", "no IP ranges specified"}
	}
	return sets, checkSets(sets, raw.CNIVersion)
}

// checkSets refuses range sets that cannot be used together.
func checkSets(sets []rangeSet, version string) error {
	families := map[bool]int{}
	for i, set := range sets {
		families[set.is4()]++
		for k := range i {
			if sets[k].overlaps(set) {
				return &ConfigError{"ipam.ranges", fmt.Sprintf("range set %d (%s) overlaps with %d (%s)", k, sets[k], i, set)}
			}
		}
	}
	if (families[true] > 1 || families[false] > 1) && !hasManyAddresses(version) {
		return &ConfigError{"ipam.ranges", fmt.Sprintf(
			"CNI version %s does not support more than 1 address per family", version)}
	}
	return nil
}

// hasManyAddresses tells whether a result of this CNI version has room for more
// than one address per family, which came with 0.3.0.
func hasManyAddresses(version string) bool {
	parts := strings.Split(version, ".")
	if len(parts) > 3 {
		return false
	}
	var numbers [3]int
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil {
			return false
		}
		numbers[i] = n
	}
	return numbers[0] > 0 || numbers[0] == 0 && numbers[1] >= 3
}
