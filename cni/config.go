// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"net"
	"net/netip"
	"path"
	"reflect"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath"
)

// Config is the configuration of one network: every key of the bridge
// plugin, and those that zipline adds (docs/configuration.md).
type Config struct {
	types.PluginConf

	// Keys of the bridge plugin.

	Bridge                    string      `json:"bridge"` // names the segment
	IsGateway                 bool        `json:"isGateway"`
	IsDefaultGateway          bool        `json:"isDefaultGateway"`
	ForceAddress              bool        `json:"forceAddress"` // needs nothing: gateway addresses do not conflict
	IPMasq                    bool        `json:"ipMasq"`
	IPMasqBackend             *string     `json:"ipMasqBackend"` // checked; both mean zipline's own ruleset
	MTU                       int         `json:"mtu"`
	HairpinMode               bool        `json:"hairpinMode"` // needs nothing: routing has no hairpin problem
	PromiscMode               bool        `json:"promiscMode"` // needs nothing: there is no bridge to set it on
	VLAN                      int         `json:"vlan"`
	VLANTrunk                 []vlanTrunk `json:"vlanTrunk"`
	PreserveDefaultVLAN       bool        `json:"preserveDefaultVlan"`
	MACSpoofCheck             bool        `json:"macspoofchk"`
	EnableDAD                 bool        `json:"enabledad"`
	DisableContainerInterface bool        `json:"disableContainerInterface"`
	PortIsolation             bool        `json:"portIsolation"`

	// Keys that zipline adds.

	Forwarding            datapath.Forwarding `json:"forwarding"`
	SourceCheck           *bool               `json:"sourceCheck"`
	NonMasqueradeCIDRs    []string            `json:"nonMasqueradeCIDRs"`
	EgressIP              egressIPs           `json:"egressIP"`
	MasqueradeFullyRandom bool                `json:"masqueradeFullyRandom"`
	BigTCP                datapath.BigTCP     `json:"bigTCP"`
	Uplinks               []string            `json:"uplinks"`
	SlowPathMark          mark                `json:"slowPathMark"`

	// IngressPolicy is to come; "open" is what there is.
	IngressPolicy string `json:"ingressPolicy"`

	Args          configArgs `json:"args"`
	RuntimeConfig struct {
		MAC          string            `json:"mac"`
		PortMappings []json.RawMessage `json:"portMappings"` // to come
		Bandwidth    json.RawMessage   `json:"bandwidth"`    // to come
	} `json:"runtimeConfig"`

	mac    net.HardwareAddr
	exempt []netip.Prefix
	egress []netip.Addr
	ipam   ipamKeys
}

// ipamKeys are the keys of "ipam" that say who manages the addresses.
type ipamKeys struct {
	Type      string `json:"type"`
	InProcess *bool  `json:"inProcess"`
}

func parseIPAM(stdin []byte) (ipamKeys, error) {
	var conf struct {
		IPAM ipamKeys `json:"ipam"`
	}
	err := json.Unmarshal(stdin, &conf)
	return conf.IPAM, err
}

type configArgs struct {
	CNI struct {
		MAC string `json:"mac"`
	} `json:"cni"`
}

type vlanTrunk struct {
	MinID *int `json:"minID"`
	MaxID *int `json:"maxID"`
	ID    *int `json:"id"`
}

// egressIPs is one address, or one for each family.
type egressIPs []string

// UnmarshalJSON accepts a string or a list of strings.
func (e *egressIPs) UnmarshalJSON(data []byte) error {
	var one string
	if string(data) != "null" && json.Unmarshal(data, &one) == nil {
		*e = egressIPs{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(e))
}

// mark is a conntrack mark: a number, or text as nft and iptables write it ("0x10").
type mark uint32

// UnmarshalJSON accepts a number or a string.
func (m *mark) UnmarshalJSON(data []byte) error {
	var text string
	if string(data) == "null" || json.Unmarshal(data, &text) != nil {
		return json.Unmarshal(data, (*uint32)(m))
	}
	value, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return &json.UnmarshalTypeError{Value: strconv.Quote(text), Type: reflect.TypeFor[uint32]()}
	}
	*m = mark(value)
	return nil
}

// defaultBridge is the bridge plugin's default segment.
const defaultBridge = "cni0"

// envArgs are the CNI_ARGS that zipline or host-local knows. Others are an
// error unless IgnoreUnknown is set, as in the bridge plugin.
type envArgs struct {
	types.CommonArgs
	MAC     types.UnmarshallableString
	IP      types.UnmarshallableString
	GATEWAY types.UnmarshallableString
}

// ParseConfig reads and checks a network configuration with the CNI_ARGS of
// the call. The error is a *types.Error whose details name the key.
func ParseConfig(stdin []byte, cniArgs string) (*Config, error) {
	c := &Config{Bridge: defaultBridge}
	if err := json.Unmarshal(stdin, c); err != nil {
		return nil, decodeError(err)
	}
	var err error
	if c.ipam, err = parseIPAM(stdin); err != nil {
		return nil, decodeError(err)
	}
	if err := c.resolve(cniArgs); err != nil {
		return nil, err
	}
	return c, nil
}

// resolve applies defaults and checks every key.
func (c *Config) resolve(cniArgs string) *types.Error {
	for _, check := range []func() *types.Error{
		c.checkBridgeKeys, c.checkVLAN, c.checkLayer, c.checkWords, c.checkUplinks, c.checkMasquerade,
		func() *types.Error { return c.checkMAC(cniArgs) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkBridgeKeys() *types.Error {
	switch {
	case c.Bridge == "":
		return invalid("bridge", "bridge must not be empty")
	case c.MTU < 0 || c.MTU > maxMTU || c.MTU > 0 && c.MTU < minMTU:
		return invalid("mtu", "mtu %d is out of range (0 or %d to %d)", c.MTU, minMTU, maxMTU)
	case c.HairpinMode && c.PromiscMode:
		return invalid("hairpinMode", "cannot set hairpin mode and promiscuous mode at the same time")
	case c.IPMasqBackend != nil && *c.IPMasqBackend != "iptables" && *c.IPMasqBackend != "nftables" && *c.IPMasqBackend != "":
		return invalid("ipMasqBackend", "unknown ipmasq backend %q", *c.IPMasqBackend)
	case c.DisableContainerInterface && c.IPAM.Type != "":
		return invalid("disableContainerInterface", "cannot use IPAM when DisableContainerInterface flag is set")
	}
	c.IsGateway = c.IsGateway || c.IsDefaultGateway
	return nil
}

// The limits of a veth (veth_setup, ETH_MIN_MTU and ETH_MAX_MTU).
const (
	minMTU = 68
	maxMTU = 65535
)

// checkLayer refuses what only an L2 network has, and what is to come: a key
// that promises a limit must not be ignored.
func (c *Config) checkLayer() *types.Error {
	switch {
	case c.VLAN != 0:
		return notYet("vlan", "vlan")
	case len(c.VLANTrunk) > 0:
		return notYet("vlanTrunk", "vlanTrunk")
	case c.IPAM.Type == "":
		return notYet("ipam", "a network without ipam")
	case c.IngressPolicy != "" && c.IngressPolicy != "open":
		return notYet("ingressPolicy", "ingressPolicy "+c.IngressPolicy)
	case len(c.RuntimeConfig.PortMappings) > 0:
		return notYet("runtimeConfig.portMappings", "the capability portMappings of zipline itself (chain portmap)")
	case len(c.RuntimeConfig.Bandwidth) > 0 && string(c.RuntimeConfig.Bandwidth) != "null":
		return notYet("runtimeConfig.bandwidth", "the capability bandwidth of zipline itself")
	}
	return nil
}

func (c *Config) checkWords() *types.Error {
	switch c.Forwarding {
	case "":
		c.Forwarding = datapath.ForwardingAuto
	case datapath.ForwardingAuto, datapath.ForwardingDirect, datapath.ForwardingTracked, datapath.ForwardingKernel:
	default:
		return invalid("forwarding", "unknown forwarding %q (auto, direct, tracked or kernel)", c.Forwarding)
	}
	switch c.BigTCP {
	case "":
		c.BigTCP = datapath.BigTCPAuto
	case datapath.BigTCPAuto, datapath.BigTCPOn, datapath.BigTCPOff:
	default:
		return invalid("bigTCP", "unknown bigTCP %q (auto, on or off)", c.BigTCP)
	}
	return nil
}

// checkUplinks checks names as the kernel does (dev_valid_name), and globs.
func (c *Config) checkUplinks() *types.Error {
	for _, name := range c.Uplinks {
		switch _, err := path.Match(name, ""); {
		case err != nil:
			return invalid("uplinks", "bad glob %q: %v", name, err)
		case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n"):
			return invalid("uplinks", "%q is no name of a device", name)
		case !strings.ContainsAny(name, `*?[\`) && len(name) >= unix.IFNAMSIZ:
			return invalid("uplinks", "name %q is longer than %d characters", name, unix.IFNAMSIZ-1)
		}
	}
	return nil
}

func (c *Config) checkMasquerade() *types.Error {
	if !c.IPMasq {
		switch {
		case len(c.EgressIP) > 0:
			return invalid("egressIP", "egressIP needs ipMasq")
		case len(c.NonMasqueradeCIDRs) > 0:
			return invalid("nonMasqueradeCIDRs", "nonMasqueradeCIDRs needs ipMasq")
		case c.MasqueradeFullyRandom:
			return invalid("masqueradeFullyRandom", "masqueradeFullyRandom needs ipMasq")
		}
	}
	for _, text := range c.NonMasqueradeCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return invalid("nonMasqueradeCIDRs", "bad prefix %q: %v", text, err)
		}
		if prefix != prefix.Masked() {
			return invalid("nonMasqueradeCIDRs", "prefix %q has host bits set (%s)", text, prefix.Masked())
		}
		if prefix.Addr().Is4In6() {
			return invalid("nonMasqueradeCIDRs", "write prefix %q as IPv4", text)
		}
		c.exempt = append(c.exempt, prefix)
	}
	return c.checkEgress()
}

func (c *Config) checkEgress() *types.Error {
	families := map[bool]string{}
	for _, text := range c.EgressIP {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return invalid("egressIP", "bad address %q: %v", text, err)
		}
		if addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() || addr.Is4In6() {
			return invalid("egressIP", "address %q cannot be a source", text)
		}
		if other, twice := families[addr.Is4()]; twice {
			return invalid("egressIP", "%s and %s are of one family", other, text)
		}
		families[addr.Is4()] = text
		c.egress = append(c.egress, addr)
	}
	if len(c.egress) > 0 && c.MasqueradeFullyRandom {
		return invalid("masqueradeFullyRandom", "masqueradeFullyRandom and egressIP exclude each other")
	}
	return nil
}

// checkMAC chooses the container's MAC: runtimeConfig before args.cni before
// CNI_ARGS, as the bridge plugin does.
func (c *Config) checkMAC(cniArgs string) *types.Error {
	var env envArgs
	if err := types.LoadArgs(cniArgs, &env); err != nil {
		return newError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS", "read CNI_ARGS: %v", err)
	}
	text, key := string(env.MAC), "CNI_ARGS MAC"
	if c.Args.CNI.MAC != "" {
		text, key = c.Args.CNI.MAC, "args.cni.mac"
	}
	if c.RuntimeConfig.MAC != "" {
		text, key = c.RuntimeConfig.MAC, "runtimeConfig.mac"
	}
	if text == "" {
		return nil
	}
	mac, err := net.ParseMAC(text)
	if err != nil {
		return invalid(key, "bad MAC address: %v", err)
	}
	if len(mac) != 6 || mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" {
		return invalid(key, "%s is not a unicast Ethernet address", mac)
	}
	c.mac = mac
	return nil
}
