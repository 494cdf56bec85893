// SPDX-License-Identifier: Apache-2.0

package nfnl

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
)

// EachAttribute calls f for every attribute of a message, whose numbers are in
// network byte order.
func EachAttribute(m netlink.Message, f func(*netlink.AttributeDecoder)) error {
	const header = 4 // struct nfgenmsg
	if len(m.Data) < header {
		return fmt.Errorf("read netfilter message: %d bytes are too few", len(m.Data))
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[header:])
	if err != nil {
		return err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		f(ad)
	}
	return ad.Err()
}
