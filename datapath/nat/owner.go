// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Owner is the attachment that elements belong to. Device decides; the rest is
// there for people and for [Ruleset.Collect].
type Owner struct {
	Device      string // name of the host side of the veth pair
	Network     string // name of the network
	ContainerID string
	IfName      string // name of the device in the container
}

// ErrOwned is what [OwnedError] matches with [errors.Is].
var ErrOwned = errors.New("element belongs to another attachment")

// OwnedError says that an address is in the ruleset for another attachment.
type OwnedError struct {
	// Owner is read from the element's comment: Network may be shortened and
	// ContainerID cut. Device is empty for an element without such a comment.
	Owner   Owner
	Address netip.Addr
}

// Error implements error.
func (e *OwnedError) Error() string {
	owner := e.Owner.Device
	if owner == "" {
		owner = "nobody that zipline knows (no comment)"
	}
	return fmt.Sprintf("address %s is in table inet zipline for %s", e.Address, owner)
}

// Is reports whether target is [ErrOwned].
func (e *OwnedError) Is(target error) bool { return target == ErrOwned }

const (
	// maxComment is what nft accepts for a comment when it reads its own
	// listing back (NFTNL_UDATA_COMMENT_MAXLEN). The kernel would store 256
	// bytes of user data, and nft would print them.
	maxComment = 128
	// maxNetwork bytes of a network's name are written out; a longer name ends
	// in a hash, so that no two networks share a word.
	maxNetwork = 48
	// macWord precedes the MAC in the comment of a macspoofchk element.
	macWord = " mac "
)

// comment returns "<device> <network> <container id>/<ifname>" cut to what nft
// can read back. The element of a device's MAC check also carries the MAC: the
// second element of that check cannot be found without it.
func (o Owner) comment(mac net.HardwareAddr) string {
	text := fmt.Sprintf("%s %s %s/%s", o.Device, networkWord(o.Network), o.ContainerID, o.IfName)
	suffix := ""
	if mac != nil {
		suffix = macWord + mac.String()
	}
	text = strings.Map(printable, text)
	if len(text) > maxComment-len(suffix) {
		text = text[:maxComment-len(suffix)]
	}
	return text + suffix
}

// parseOwner reads a comment back. The zero Owner means that it is not ours.
func parseOwner(comment string) Owner {
	words := strings.SplitN(comment, " ", 3)
	if len(words) != 3 {
		return Owner{}
	}
	id, ifName, _ := strings.Cut(words[2], "/")
	ifName, _, _ = strings.Cut(ifName, macWord)
	return Owner{Device: words[0], Network: words[1], ContainerID: id, IfName: ifName}
}

// parseMAC returns the MAC in the comment of a macspoofchk element, nil for none.
func parseMAC(comment string) net.HardwareAddr {
	i := strings.LastIndex(comment, macWord)
	if i < 0 {
		return nil
	}
	mac, err := net.ParseMAC(comment[i+len(macWord):])
	if err != nil || len(mac) != macLen {
		return nil
	}
	return mac
}

// OwnerOf says whether an element with this owner is an endpoint's of the
// network; a long network name is shortened in comments.
func (o Owner) OwnerOf(network string) bool { return o.Network == networkWord(network) }

// networkWord is the network's name as it appears in comments.
func networkWord(name string) string {
	name = strings.Map(printable, strings.ReplaceAll(name, " ", "_"))
	if len(name) <= maxNetwork {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	hash := "~" + hex.EncodeToString(sum[:8])
	return name[:maxNetwork-len(hash)] + hash
}

// printable replaces what would break a comment: nft strings have no escapes.
func printable(r rune) rune {
	if r == '"' || r == '\\' || r < ' ' || r > '~' {
		return '_'
	}
	return r
}
