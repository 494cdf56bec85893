// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Broadcast is the Ethernet broadcast address.
var Broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// UDP returns an IPv4 or IPv6 packet with a UDP datagram and right checksums.
func UDP(src, dst netip.AddrPort, payload []byte) []byte {
	datagram := binary.BigEndian.AppendUint16(nil, src.Port())
	datagram = binary.BigEndian.AppendUint16(datagram, dst.Port())
	datagram = binary.BigEndian.AppendUint16(datagram, uint16(8+len(payload)))
	datagram = append(datagram, 0, 0)
	datagram = append(datagram, payload...)
	return packet(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, datagram, 6)
}

// TCP returns an IPv4 or IPv6 packet with a TCP header that has these flags,
// sequence and acknowledgement numbers 1, and no data.
func TCP(src, dst netip.AddrPort, flags byte) []byte {
	segment := binary.BigEndian.AppendUint16(nil, src.Port())
	segment = binary.BigEndian.AppendUint16(segment, dst.Port())
	segment = binary.BigEndian.AppendUint32(segment, 1)
	segment = binary.BigEndian.AppendUint32(segment, 1)
	segment = append(segment, 5<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	return packet(src.Addr(), dst.Addr(), unix.IPPROTO_TCP, segment, 16)
}

// Echo returns an ICMP or ICMPv6 echo request.
func Echo(src, dst netip.Addr) []byte {
	if src.Is4() {
		return packet(src, dst, unix.IPPROTO_ICMP, []byte{8, 0, 0, 0, 0x7a, 0x6c, 0, 1}, 2)
	}
	return packet(src, dst, unix.IPPROTO_ICMPV6, []byte{128, 0, 0, 0, 0x7a, 0x6c, 0, 1}, 2)
}

// Ethernet returns a frame around an IPv4 or IPv6 packet.
func Ethernet(dst, src net.HardwareAddr, packet []byte) []byte {
	etherType := []byte{0x08, 0x00}
	if packet[0]>>4 == 6 {
		etherType = []byte{0x86, 0xdd}
	}
	frame := append(append([]byte(nil), dst...), src...)
	return append(append(frame, etherType...), packet...)
}

// HardwareAddr returns the MAC of a device of the namespace.
func (ns *Namespace) HardwareAddr(tb testing.TB, device string) net.HardwareAddr {
	tb.Helper()
	var mac net.HardwareAddr
	err := ns.Do(func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		mac = link.HardwareAddr
		return nil
	})
	if err != nil {
		tb.Fatalf("hardware address of %s in %s: %v", device, ns.Name, err)
	}
	return mac
}

// packet puts an IP header before a transport segment and fills in the
// segment's checksum, which lies at sumAt.
func packet(src, dst netip.Addr, protocol byte, segment []byte, sumAt int) []byte {
	sum := uint32(0)
	if protocol != unix.IPPROTO_ICMP {
		sum = pseudoSum(src, dst, protocol, len(segment))
	}
	check := fold(onesSum(segment, sum))
	if check == 0 && protocol == unix.IPPROTO_UDP {
		check = 0xffff // 0 says "no checksum"
	}
	binary.BigEndian.PutUint16(segment[sumAt:], check)
	if src.Is4() {
		header := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0}
		header = append(append(header, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(segment)))
		binary.BigEndian.PutUint16(header[10:], fold(onesSum(header, 0)))
		return append(header, segment...)
	}
	header := []byte{0x60, 0, 0, 0, 0, 0, protocol, 64}
	binary.BigEndian.PutUint16(header[4:], uint16(len(segment)))
	header = append(append(header, src.AsSlice()...), dst.AsSlice()...)
	return append(header, segment...)
}

func pseudoSum(src, dst netip.Addr, protocol byte, length int) uint32 {
	return onesSum(dst.AsSlice(), onesSum(src.AsSlice(), uint32(protocol)+uint32(length)))
}

func onesSum(data []byte, sum uint32) uint32 {
	for i, b := range data {
		if i%2 == 0 {
			sum += uint32(b) << 8
		} else {
			sum += uint32(b)
		}
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Checksum returns the internet checksum of data.
func Checksum(data []byte) uint16 { return fold(onesSum(data, 0)) }
