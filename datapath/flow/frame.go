// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath/conntrack"
)

const (
	headerEthernet = 14
	headerIPv4     = 20
	headerIPv6     = 40
	headerTCP      = 20
	headerOther    = 8 // UDP's, and an echo request's
	ackFlag        = 0x10
	hops           = 64
)

// frame is the smallest ordinary packet of a direction: of TCP an
// acknowledgement, since what opens and closes a connection is the stack's. Its
// checksums are left out, as the programs only ever change them.
func frame(protocol uint8, t conntrack.Tuple, source, destination net.HardwareAddr) []byte {
	length := headerOther
	if protocol == unix.IPPROTO_TCP {
		length = headerTCP
	}
	b := make([]byte, 0, headerEthernet+headerIPv6+length)
	b = append(append(b, destination...), source...)
	if t.Source.Addr().Is4() {
		b = appendIPv4(b, protocol, t.Source.Addr(), t.Destination.Addr(), length)
	} else {
		b = appendIPv6(b, protocol, t.Source.Addr(), t.Destination.Addr(), length)
	}
	payload := make([]byte, length)
	binary.BigEndian.PutUint16(payload, t.Source.Port())
	binary.BigEndian.PutUint16(payload[2:], t.Destination.Port())
	if protocol == unix.IPPROTO_TCP {
		payload[12], payload[13] = headerTCP/4<<4, ackFlag
	} else {
		binary.BigEndian.PutUint16(payload[4:], uint16(length))
	}
	return append(b, payload...)
}

func appendIPv4(b []byte, protocol uint8, source, destination netip.Addr, length int) []byte {
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	header := make([]byte, headerIPv4)
	header[0] = 4<<4 | headerIPv4/4
	binary.BigEndian.PutUint16(header[2:], uint16(headerIPv4+length))
	header[8], header[9] = hops, protocol
	copy(header[12:], source.AsSlice())
	copy(header[16:], destination.AsSlice())
	return append(b, header...)
}

func appendIPv6(b []byte, protocol uint8, source, destination netip.Addr, length int) []byte {
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IPV6)
	header := make([]byte, headerIPv6)
	header[0] = 6 << 4
	binary.BigEndian.PutUint16(header[4:], uint16(length))
	header[6], header[7] = protocol, hops
	copy(header[8:], source.AsSlice())
	copy(header[24:], destination.AsSlice())
	return append(b, header...)
}
