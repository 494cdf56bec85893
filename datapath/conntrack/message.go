// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nfnl"
)

// Messages and attributes of include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const (
	getEntry    = 1 // IPCTNL_MSG_CT_GET
	deleteEntry = 2 // IPCTNL_MSG_CT_DELETE
	getStats    = 5 // IPCTNL_MSG_CT_GET_STATS

	attrTupleOriginal = 1  // CTA_TUPLE_ORIG
	attrTupleReply    = 2  // CTA_TUPLE_REPLY
	attrID            = 12 // CTA_ID
	attrZone          = 18 // CTA_ZONE
	attrFilter        = 25 // CTA_FILTER

	attrTupleIP = 1 // CTA_TUPLE_IP
	attrSource4 = 1 // CTA_IP_V4_SRC
	attrSource6 = 3 // CTA_IP_V6_SRC

	attrFilterOriginal = 1 // CTA_FILTER_ORIG_FLAGS
	attrFilterReply    = 2 // CTA_FILTER_REPLY_FLAGS
	filterSource       = 1 // CTA_FILTER_FLAG(CTA_IP_SRC)

	attrStatsEntries = 1 // CTA_STATS_GLOBAL_ENTRIES
)

// direction of a flow whose source is looked at.
type direction struct{ tuple, filter uint16 }

var (
	original = direction{attrTupleOriginal, attrFilterOriginal}
	reply    = direction{attrTupleReply, attrFilterReply}
)

// entry is what is needed of an entry to delete it and no other.
type entry struct {
	original, reply netip.Addr // the sources of both directions
	family          byte
	tuple, id, zone []byte // attributes as the kernel sent them
}

func newMessage(kind int, flags netlink.HeaderFlags, family byte, attributes []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | kind),
			Flags: flags,
		},
		Data: append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...),
	}
}

func familyOf(addr netip.Addr) byte {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// filterMessage lists or deletes the entries with addr as source in a direction.
func filterMessage(kind int, flags netlink.HeaderFlags, addr netip.Addr, d direction) netlink.Message {
	source := uint16(attrSource4)
	if addr.Is6() {
		source = attrSource6
	}
	return newMessage(kind, netlink.Request|flags, familyOf(addr), encode(func(e *netlink.AttributeEncoder) {
		nested(e, d.tuple, func(tuple *netlink.AttributeEncoder) {
			nested(tuple, attrTupleIP, func(ip *netlink.AttributeEncoder) {
				ip.Bytes(source, addr.AsSlice())
			})
		})
		nested(e, attrFilter, func(filter *netlink.AttributeEncoder) {
			// In the machine's byte order, unlike everything else.
			filter.Bytes(d.filter, binary.NativeEndian.AppendUint32(nil, filterSource))
		})
	}))
}

// deleteMessage names the entry by tuple and id: another entry may have taken the
// tuple since.
func (e entry) deleteMessage() netlink.Message {
	return newMessage(deleteEntry, netlink.Request|netlink.Acknowledge, e.family, encode(func(a *netlink.AttributeEncoder) {
		a.Bytes(unix.NLA_F_NESTED|attrTupleOriginal, e.tuple)
		a.Bytes(attrID, e.id)
		if e.zone != nil {
			a.Bytes(attrZone, e.zone)
		}
	}))
}

func decodeEntry(m netlink.Message) (entry, error) {
	var e entry
	err := nfnl.EachAttribute(m, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case attrTupleOriginal:
			e.tuple = ad.Bytes()
			ad.Nested(sourceInto(&e.original))
		case attrTupleReply:
			ad.Nested(sourceInto(&e.reply))
		case attrID:
			e.id = ad.Bytes()
		case attrZone:
			e.zone = ad.Bytes()
		}
	})
	if err != nil {
		return e, fmt.Errorf("decode connection: %w", err)
	}
	e.family = m.Data[0]
	return e, nil
}

// sourceInto reads the source address of a tuple.
func sourceInto(addr *netip.Addr) func(*netlink.AttributeDecoder) error {
	return func(tuple *netlink.AttributeDecoder) error {
		for tuple.Next() {
			if tuple.Type() != attrTupleIP {
				continue
			}
			tuple.Nested(func(ip *netlink.AttributeDecoder) error {
				for ip.Next() {
					if ip.Type() == attrSource4 || ip.Type() == attrSource6 {
						*addr, _ = netip.AddrFromSlice(ip.Bytes())
					}
				}
				return nil
			})
		}
		return nil
	}
}

func encode(fill func(*netlink.AttributeEncoder)) []byte {
	e := netlink.NewAttributeEncoder()
	fill(e)
	data, err := e.Encode()
	if err != nil {
		panic(fmt.Sprintf("encode conntrack message: %v", err)) // no attribute can fail
	}
	return data
}

func nested(e *netlink.AttributeEncoder, kind uint16, fill func(*netlink.AttributeEncoder)) {
	e.Nested(kind, func(n *netlink.AttributeEncoder) error {
		fill(n)
		return nil
	})
}
