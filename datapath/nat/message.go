// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The library builds such messages too, but it offers neither a batch with a
// generation number nor the lookup of one element, and asks the kernel to
// acknowledge and echo every message.

const (
	flagInterval = unix.NFT_SET_INTERVAL
	flagMap      = unix.NFT_SET_MAP
	flagConcat   = nftables.NFT_SET_CONCAT

	attrChainComment = 12 // NFTA_CHAIN_USERDATA
	attrFieldLen     = 1  // NFTA_SET_FIELD_LEN
	attrGenID        = 1  // NFNL_BATCH_GENID

	chainComment   userdata.Type = 0 // NFTNL_UDATA_CHAIN_COMMENT
	byteOrderHost                = 1
	byteOrderBig                 = 2
	byteOrderMixed               = 0
)

// message is a netlink message and what it does, for errors.
type message struct {
	what string
	netlink.Message
}

// attributes are written by functions that cannot fail one by one.
type attributes = netlink.AttributeEncoder

func newMessage(kind int, flags netlink.HeaderFlags, what string, fill func(*attributes)) message {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	fill(e)
	data, err := e.Encode()
	if err != nil {
		// Only a nested function's error or an attribute above 64 KiB gets
		// here, and both are excluded by how messages are built below.
		panic(fmt.Sprintf("%s: encode message: %v", what, err))
	}
	return message{what: what, Message: netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, data...),
	}}
}

func nested(e *attributes, kind uint16, fill func(*attributes)) {
	e.Nested(kind, func(n *attributes) error {
		n.ByteOrder = binary.BigEndian
		fill(n)
		return nil
	})
}

func newTable() message {
	return newMessage(unix.NFT_MSG_NEWTABLE, netlink.Create, "add table", tableName)
}

func deleteTable() message {
	return newMessage(unix.NFT_MSG_DELTABLE, 0, "delete table", tableName)
}

// tableName writes the table's name; the attribute has the same number in every
// kind of message.
func tableName(e *attributes) { e.String(unix.NFTA_TABLE_NAME, TableName) }

func newChain(c chainSpec) message {
	return newMessage(unix.NFT_MSG_NEWCHAIN, netlink.Create, "add chain "+c.name, func(e *attributes) {
		tableName(e)
		e.String(unix.NFTA_CHAIN_NAME, c.name)
		if c.isBase() {
			nested(e, unix.NFTA_CHAIN_HOOK, func(h *attributes) {
				h.Uint32(unix.NFTA_HOOK_HOOKNUM, uint32(c.hook))
				h.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
			})
			e.Uint32(unix.NFTA_CHAIN_POLICY, uint32(nftables.ChainPolicyAccept))
			e.String(unix.NFTA_CHAIN_TYPE, string(c.kind))
		}
		if c.comment != "" {
			e.Bytes(attrChainComment, userdata.AppendString(nil, chainComment, c.comment))
		}
	})
}

func deleteChain(name string) message {
	return newMessage(unix.NFT_MSG_DELCHAIN, 0, "delete chain "+name, func(e *attributes) {
		tableName(e)
		e.String(unix.NFTA_CHAIN_NAME, name)
	})
}

func newRule(c chainSpec, r rule) message {
	what := fmt.Sprintf("add rule %q to chain %s", r.text, c.name)
	return newMessage(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, what, func(e *attributes) {
		tableName(e)
		e.String(unix.NFTA_RULE_CHAIN, c.name)
		nested(e, unix.NFTA_RULE_EXPRESSIONS, func(list *attributes) {
			for _, x := range r.exprs {
				list.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, marshalExpr(x))
			}
		})
		if r.comment != "" {
			e.Bytes(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, r.comment))
		}
	})
}

func marshalExpr(x expr.Any) []byte {
	data, err := expr.Marshal(unix.NFPROTO_INET, x)
	if err != nil {
		panic(fmt.Sprintf("encode static rule: %v", err)) // no input but code
	}
	return data
}

// deleteRules empties all chains of the table.
func deleteRules() message {
	return newMessage(unix.NFT_MSG_DELRULE, 0, "delete all rules", tableName)
}

func newSet(s *setSpec) message {
	return newMessage(unix.NFT_MSG_NEWSET, netlink.Create|netlink.Excl, "add set "+s.name, func(e *attributes) {
		key := s.keyType()
		tableName(e)
		e.String(unix.NFTA_SET_NAME, s.name)
		e.Uint32(unix.NFTA_SET_FLAGS, s.flags())
		e.Uint32(unix.NFTA_SET_KEY_TYPE, key.GetNFTMagic())
		e.Uint32(unix.NFTA_SET_KEY_LEN, key.Bytes)
		if s.data != nil {
			e.Uint32(unix.NFTA_SET_DATA_TYPE, s.data.GetNFTMagic())
			e.Uint32(unix.NFTA_SET_DATA_LEN, s.data.Bytes)
		}
		if s.flags()&flagConcat != 0 {
			nested(e, unix.NFTA_SET_DESC, func(d *attributes) {
				nested(d, nftables.NFTA_SET_DESC_CONCAT, s.fields)
			})
		}
		e.Uint32(unix.NFTA_SET_ID, 0)
		e.Bytes(unix.NFTA_SET_USERDATA, s.userData())
	})
}

// fields writes the length of each part of a concatenated key.
func (s *setSpec) fields(e *attributes) {
	for _, field := range s.key {
		nested(e, unix.NFTA_LIST_ELEM, func(f *attributes) { f.Uint32(attrFieldLen, field.Bytes) })
	}
}

// userData tells nft how to print the set: the byte order of key and data, and
// the comment.
func (s *setSpec) userData() []byte {
	order := uint32(byteOrderBig)
	switch {
	case len(s.key) > 1:
		order = byteOrderMixed
	case s.key[0].Name == nftables.TypeIFName.Name:
		order = byteOrderHost
	}
	native := func(b []byte, kind userdata.Type, value uint32) []byte {
		return userdata.Append(b, kind, binary.NativeEndian.AppendUint32(nil, value))
	}
	data := native(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, order)
	if s.data != nil {
		data = native(data, userdata.NFTNL_UDATA_SET_DATABYTEORDER, byteOrderBig)
	}
	return userdata.AppendString(data, userdata.NFTNL_UDATA_SET_COMMENT, s.comment)
}

func deleteSet(name string) message {
	return newMessage(unix.NFT_MSG_DELSET, 0, "delete set "+name, func(e *attributes) {
		tableName(e)
		e.String(unix.NFTA_SET_NAME, name)
	})
}
