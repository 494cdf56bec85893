// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"net"
	"strings"

	"github.com/zipline-cni/zipline/datapath/nat"
)

// Numbers that other software may match on. They never change.
const (
	// Group is the link group of the host veths of endpoints (ip link … group).
	Group = 31340
	// GroupUnchecked is the group of endpoints with "sourceCheck": false.
	GroupUnchecked = 31341
	// RouteProtocol marks the routes that zipline made (rtm_protocol 'z').
	RouteProtocol = 122
)

// devicePrefix starts the name of every host veth.
const devicePrefix = "zl"

// A device name is the prefix, a hash of the network and a hash of the
// attachment: 15 bytes, the longest that the kernel takes (IFNAMSIZ). With 45
// bits two of 2,000 endpoints collide on one node in 17 million.
const (
	networkChars    = 4
	attachmentChars = 9
)

// aliasMax is the longest interface alias in bytes: IFALIASZ less its NUL.
const aliasMax = 255

// Attachment identifies an endpoint: what the CNI specification calls an
// attachment, within its network.
type Attachment struct {
	Network     string
	ContainerID string
	IfName      string
}

func (a Attachment) sum(salt string) []byte {
	sum := sha256.Sum256([]byte(salt + a.Network + "\x00" + a.ContainerID + "\x00" + a.IfName))
	return sum[:]
}

// Device returns the name of the host veth. It follows from the attachment
// alone, so the device is found without records, without the container's
// namespace and after any crash.
func (a Attachment) Device() string {
	return a.networkPrefix() + nameChars(a.sum(""), attachmentChars)
}

// DevicePattern returns the pattern, as iptables writes it (a trailing + is
// the wildcard), that matches the host veths of the attachment's network and
// no other device: what the name of the bridge was for rules.
func (a Attachment) DevicePattern() string { return a.networkPrefix() + "+" }

func (a Attachment) networkPrefix() string { return networkPrefix(a.Network) }

func networkPrefix(network string) string {
	sum := sha256.Sum256([]byte(network))
	return devicePrefix + nameChars(sum[:], networkChars)
}

// nameEncoding is base32 in lower case: five bits in each byte of a name.
var nameEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func nameChars(sum []byte, n int) string { return nameEncoding.EncodeToString(sum)[:n] }

// hostMAC and containerMAC follow from the attachment too, which saves
// reading back what the kernel would have drawn. Both are locally
// administered unicast addresses.
func (a Attachment) hostMAC() net.HardwareAddr      { return localMAC(a.sum("host veth\x00")) }
func (a Attachment) containerMAC() net.HardwareAddr { return localMAC(a.sum("container\x00")) }

func localMAC(sum []byte) net.HardwareAddr {
	mac := net.HardwareAddr(append([]byte(nil), sum[:6]...))
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// aliasMark starts the alias of every host veth.
const aliasMark = "zipline"

// alias tells people, and GC, whose device this is. A field that does not
// fit is replaced by its hash, so that GC can still compare.
func (a Attachment) alias() string {
	fields := []string{a.Network, a.ContainerID, a.IfName}
	text := strings.Join(append([]string{aliasMark}, fields...), " ")
	if len(text) <= aliasMax {
		return text
	}
	for i, field := range fields {
		fields[i] = aliasField(field)
	}
	return strings.Join(append([]string{aliasMark}, fields...), " ")
}

// aliasField shortens a field too long for an alias. CNI names hold no '#'.
func aliasField(s string) string {
	if len(s) <= 40 {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return "#" + hex.EncodeToString(sum[:16])
}

// ofNetwork says whether a device of ours belongs to the network: by its
// alias, or, for the rest of an ADD that was killed before it set one, by its
// name.
func ofNetwork(name, alias, network string) bool {
	if alias == "" {
		return strings.HasPrefix(name, networkPrefix(network))
	}
	return aliasOfNetwork(alias, network)
}

func aliasOfNetwork(alias, network string) bool {
	fields := strings.Split(alias, " ")
	return len(fields) == 4 && fields[0] == aliasMark && (fields[1] == network || fields[1] == aliasField(network))
}

func (a Attachment) owner() nat.Owner {
	return nat.Owner{Device: a.Device(), Network: a.Network, ContainerID: a.ContainerID, IfName: a.IfName}
}
