// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// parseIP takes an IP packet apart, whole or cut off as in an ICMP error. The
// second value is false for what is none.
func parseIP(packet []byte) (datagram, bool) {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return parseIPv4(packet)
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return parseIPv6(packet), true
	}
	return datagram{}, false
}

func parseIPv4(packet []byte) (datagram, bool) {
	header := int(packet[0]&0xf) * 4
	if header < 20 || header > len(packet) {
		return datagram{}, false
	}
	d := datagram{
		src: netip.AddrFrom4([4]byte(packet[12:])), dst: netip.AddrFrom4([4]byte(packet[16:])),
		tos: packet[1], ttl: packet[8], protocol: packet[9],
		fragmentID: uint32(binary.BigEndian.Uint16(packet[4:])), first: true, whole: true,
		badHeader: fold(onesSum(packet[:header], 0)) != 0,
	}
	// The length is 0 in a BIG TCP packet.
	if total := int(binary.BigEndian.Uint16(packet[2:])); total >= header && total < len(packet) {
		packet = packet[:total]
	}
	if header > 20 {
		d.flags = append(d.flags, "options")
	}
	fragment := binary.BigEndian.Uint16(packet[6:])
	if fragment&0x4000 != 0 {
		d.flags = append(d.flags, "df")
	}
	d.setFragment(fragment&0x1fff, fragment&0x2000 != 0)
	d.payload = packet[header:]
	return d, true
}

func parseIPv6(packet []byte) datagram {
	d := datagram{
		src: netip.AddrFrom16([16]byte(packet[8:])), dst: netip.AddrFrom16([16]byte(packet[24:])),
		tos: packet[0]<<4 | packet[1]>>4, ttl: packet[7], protocol: packet[6], first: true, whole: true,
	}
	length := int(binary.BigEndian.Uint16(packet[4:]))
	packet = packet[40:]
	if length > 0 && length < len(packet) {
		packet = packet[:length]
	}
	for d.first && len(packet) >= 8 {
		size := int(packet[1])*8 + 8
		switch d.protocol {
		case unix.IPPROTO_HOPOPTS:
			// The kernel's own, inside the machine only, in a BIG TCP packet.
			if jumbo := length == 0 && packet[2] == 0xc2; !jumbo {
				d.flags = append(d.flags, "hop-by-hop")
			}
		case unix.IPPROTO_DSTOPTS:
			d.flags = append(d.flags, "destination-options")
		case unix.IPPROTO_FRAGMENT:
			size = 8
			fragment := binary.BigEndian.Uint16(packet[2:])
			d.fragmentID = binary.BigEndian.Uint32(packet[4:])
			d.setFragment(fragment>>3, fragment&1 != 0)
		default:
			size = 0
		}
		if size == 0 || size > len(packet) {
			break
		}
		d.protocol, packet = packet[0], packet[size:]
	}
	d.payload = packet
	return d
}

func (d *datagram) setFragment(offset uint16, more bool) {
	if offset == 0 && !more {
		return
	}
	d.flags = append(d.flags, "fragment")
	d.whole = false
	d.first = offset == 0
}
