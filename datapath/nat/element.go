// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nfnl"
)

// element is an element of a set or map.
type element struct {
	key     []byte
	keyEnd  []byte // of an interval set; otherwise nil
	data    []byte // of a map; otherwise nil
	comment string
	about   string // what it stands for, for errors
}

const ifNameLen = 16

// addressElement is the key of the sets that are keyed by an address.
func addressElement(addr netip.Addr) element {
	return element{key: addr.AsSlice(), about: addr.String()}
}

func deviceElement(device string) element {
	key := make([]byte, ifNameLen)
	copy(key, device)
	return element{key: key, about: device}
}

// ownElement is the key of the sets of devices and their addresses.
func ownElement(device string, addr netip.Addr) element {
	e := deviceElement(device)
	e.key = append(e.key, addr.AsSlice()...)
	e.about += " . " + addr.String()
	return e
}

// macElement pads the MAC to the size of registers.
func macElement(device string, mac net.HardwareAddr) element {
	e := deviceElement(device)
	e.key = append(append(e.key, mac...), 0, 0)
	e.about += " . " + mac.String()
	return e
}

// addElements and deleteElements return nothing for no elements.
func addElements(s *setSpec, elements ...element) []message {
	// Excl: an element that appeared since it was looked up is a conflict.
	return elementMessages(unix.NFT_MSG_NEWSETELEM, netlink.Create|netlink.Excl, "add", s, elements)
}

func deleteElements(s *setSpec, elements ...element) []message {
	keys := make([]element, len(elements))
	for i, el := range elements {
		keys[i] = element{key: el.key, keyEnd: el.keyEnd, about: el.about}
	}
	return elementMessages(unix.NFT_MSG_DELSETELEM, 0, "delete", s, keys)
}

// ensureDeleted deletes elements that may not be there: it adds them first, which
// does nothing to those that are. (The kernel has a message for this since 6.3.)
func ensureDeleted(s *setSpec, elements ...element) []message {
	messages := elementMessages(unix.NFT_MSG_NEWSETELEM, netlink.Create, "add", s, elements)
	return append(messages, deleteElements(s, elements...)...)
}

// chunk is how many elements go in one message: the list must stay below the
// 64 KiB of one attribute.
const chunk = 150

func elementMessages(kind int, flags netlink.HeaderFlags, verb string, s *setSpec, elements []element) []message {
	var messages []message
	for len(elements) > 0 {
		n := min(chunk, len(elements))
		what := fmt.Sprintf("%s element %s of %s", verb, elements[0].about, s.name)
		messages = append(messages, newMessage(kind, flags, what, func(e *attributes) {
			elementList(e, s.name, elements[:n])
		}))
		elements = elements[n:]
	}
	return messages
}

// getElement asks for one element by its key.
func getElement(s *setSpec, el element) message {
	return newMessage(unix.NFT_MSG_GETSETELEM, 0, "look up "+el.about+" in "+s.name, func(e *attributes) {
		elementList(e, s.name, []element{{key: el.key, keyEnd: el.keyEnd}})
	})
}

func elementList(e *attributes, set string, elements []element) {
	e.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	e.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	if len(elements) == 0 {
		return
	}
	nested(e, unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *attributes) {
		for _, el := range elements {
			nested(list, unix.NFTA_LIST_ELEM, el.encode)
		}
	})
}

func (el element) encode(e *attributes) {
	value := func(kind uint16, data []byte) {
		if data != nil {
			nested(e, kind, func(v *attributes) { v.Bytes(unix.NFTA_DATA_VALUE, data) })
		}
	}
	value(unix.NFTA_SET_ELEM_KEY, el.key)
	value(nftables.NFTA_SET_ELEM_KEY_END, el.keyEnd)
	value(unix.NFTA_SET_ELEM_DATA, el.data)
	if el.comment != "" {
		e.Bytes(unix.NFTA_SET_ELEM_USERDATA,
			userdata.AppendString(nil, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, el.comment))
	}
}

// decodeElements reads the elements of one reply.
func decodeElements(m netlink.Message) ([]element, error) {
	var elements []element
	err := nfnl.EachAttribute(m, func(ad *netlink.AttributeDecoder) {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		ad.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				var el element
				list.Nested(el.decode)
				elements = append(elements, el)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("decode elements: %w", err)
	}
	return elements, nil
}

func (el *element) decode(ad *netlink.AttributeDecoder) error {
	value := func(v *netlink.AttributeDecoder, to *[]byte) {
		v.Nested(func(n *netlink.AttributeDecoder) error {
			for n.Next() {
				if n.Type() == unix.NFTA_DATA_VALUE {
					*to = n.Bytes()
				}
			}
			return nil
		})
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			value(ad, &el.key)
		case nftables.NFTA_SET_ELEM_KEY_END:
			value(ad, &el.keyEnd)
		case unix.NFTA_SET_ELEM_DATA:
			value(ad, &el.data)
		case unix.NFTA_SET_ELEM_USERDATA:
			el.comment = elementComment(ad.Bytes())
		}
	}
	return nil
}

// elementComment reads the comment out of user data that anybody may have
// written: the library's reader trusts the lengths in it.
func elementComment(data []byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		kind, value := data[0], data[2:2+int(data[1])]
		if kind == byte(userdata.NFTNL_UDATA_SET_ELEM_COMMENT) && len(value) > 0 {
			return string(value[:len(value)-1])
		}
		data = data[2+len(value):]
	}
	return ""
}
